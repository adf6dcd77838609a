"""What rules ask of items, held against the items that there are, before a spec is served."""

import contextlib
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from bandits.errors import BanditloopError, SpecError
from policies.artifacts.fetch import load_artifact
from policies.items.catalogue import Catalogue
from policies.items.offering import rule_troubles
from policies.items.timeline import ItemTimeline
from policies.spec import PolicySpec
from serve_app.settings import Settings
from serve_app.store.clients import FAILURES, Redis, blocking_client
from serve_app.store.items.history import items_now

MAY_COME: Final = frozenset({"filter.fields", "exposure.group", "page"})
"""Fields that name features alone: nothing can say there that items are yet to get one."""


def notes_on_rules(
    settings: Settings, running: Sequence[PolicySpec], wanted: Sequence[PolicySpec]
) -> list[str]:
    """Return a line for each rule that asks of items what none of them can answer.

    Where items are yet to come, or the Redis does not answer, nothing is known against a rule.

    Args:
        settings: of the service; its Redis is asked.
        running: the specs that are served; a condition of theirs stays as it is.
        wanted: those that are to be.

    Raises:
        SpecError: a condition that is new asks so; it names policy, field and the nearest feature.
    """
    before, notes = {spec.name: spec for spec in running}, list[str]()
    with contextlib.closing(blocking_client(str(settings.redis_url))) as client:
        for spec in wanted:
            for field, said in _troubles(client, spec).items():
                [rule] = re.findall(r"^\w+", field)
                is_new = getattr(spec, rule) != getattr(before.get(spec.name), rule, None)
                line = f"policy {spec.name}: {field}: {said}"
                if is_new and field not in MAY_COME:
                    hint = "ask has(item.…) in the condition where items are yet to get it"
                    raise SpecError(f"{line}; {hint}", field)
                notes.append(line)
    return notes


def _troubles(client: Redis, spec: PolicySpec) -> dict[str, str]:
    """Return by field what a spec's rules ask in vain."""
    rules = spec.rules
    if rules is None or not rules.needs_features:
        return {}
    with contextlib.suppress(*FAILURES, BanditloopError, msgspec.MsgspecError):
        items = items_now(client, spec.shares)
        if not items.newest.limits and spec.artifact is not None:
            items = ItemTimeline(Catalogue.of(load_artifact(spec.artifact).catalogue))
        return rule_troubles(rules, items)
    return {}
