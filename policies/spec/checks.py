"""Checks of a spec that somebody brings in: no idle field, a learner that learns.

A log's spec is not asked again: the build that wrote it has admitted it, and it means now what it
meant then.
"""

from collections import Counter
from collections.abc import Iterator

import msgspec

from bandits.errors import SpecError
from bandits.features.namespaces import CONTEXT, FEATURES, ITEM, SCORES, NamespaceName
from bandits.learner_config import is_set
from policies.profiles.signals import signal_types
from policies.requests import is_private
from policies.rules.pages.page import Page
from policies.rules.quotas.contradictions import contradiction
from policies.spec.modes import idle_mode
from policies.spec.policy import PolicySpec
from policies.spec.sources import RlSource

OF_ACTIONS: tuple[NamespaceName, ...] = (ITEM, FEATURES, SCORES)
OF_SOURCES = (ITEM, SCORES)
"""The namespaces of a mixture's actions."""


def admit(spec: PolicySpec) -> PolicySpec:
    """Return the spec if it may be brought in; refuse it otherwise.

    Raises:
        SpecError: a field would be without effect, or the learner could not tell one action from
            another; ``target`` is the field, and the message says what to do.
    """
    for target, message in _idle(spec):
        raise SpecError(message, target)
    check_learner(spec)
    return spec


def check_learner(spec: PolicySpec) -> None:
    """Hold a policy to what ``admit`` demands of its learner, also one made in Python.

    Raises:
        SpecError: the learner was not found to learn so, or the exploration could not act on what
            it learns.
    """
    spec.learner.check_learns(spec.exploration, spec.join.default_reward)


def _idle(spec: PolicySpec) -> Iterator[tuple[str, str]]:
    """Yield each field that would be without effect, and what to do about it."""
    if is_set(spec, "limit") and all(isinstance(source, RlSource) for source in spec.sources):
        yield (
            "limit",
            "no source proposes candidates, of which there could be too many: leave limit out",
        )
    if spec.profiles is not None and spec.artifact is None:
        yield "profiles", "profiles are of an artifact's items, and none is named: set artifact"
    if is_set(spec, "within") and spec.kind != "mixture":
        meant = "within says how the sources of a mixture choose"
        yield "within", f"{meant}, and this is a {spec.kind}: leave it out"

    yield from _private(spec)
    yield from _protected(spec)
    yield from _ruled(spec)
    yield from _held(spec)
    yield from _seen(spec)
    yield from idle_mode(spec)
    yield from spec.learner.idle(_present(spec))

    if spec.prior is not msgspec.UNSET:
        if spec.artifact is None:
            yield "prior", "an artifact brings the prior, and the spec names none: leave prior out"
        elif not spec.learner.learns:
            yield "prior", f"a policy of kind {spec.kind} is taught no prior: leave prior out"

    # What is not learned is not joined in any special way.
    if not spec.learner.learns:
        for field in ("learn", "late"):
            if is_set(spec.join, field):
                yield (
                    f"join.{field}",
                    f"a policy of kind {spec.kind} learns nothing from its log: leave {field} out",
                )


def _private(spec: PolicySpec) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the names of features that are never logged."""
    names = spec.context_private
    if names is msgspec.UNSET:
        return
    if not names:
        yield "context_private", "it names no feature: leave it out"
    for at, name in enumerate(names):
        if not name.strip(".") or name != name.strip(". "):
            yield (
                f"context_private[{at}]",
                f"no feature is called {name!r}: name one as home.street",
            )
        if is_private(name, names[:at] + names[at + 1 :]):
            yield (
                f"context_private[{at}]",
                f"{name} is named twice, or below another: once is enough",
            )


def _protected(spec: PolicySpec) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the names of features that models are not to go by."""
    names = spec.protected
    if names is msgspec.UNSET:
        return
    if not names:
        yield "protected", "it names no feature: leave it out"

    private = () if spec.context_private is msgspec.UNSET else spec.context_private
    for name in names:
        if not name.strip(".") or name != name.strip(". "):
            yield f"protected.{name}", f"no feature is called {name!r}: name one as home.street"
        if is_private(name, private):
            yield (
                f"protected.{name}",
                "context_private has it, so it is never logged and no model sees it: leave it out",
            )
        if is_private(name, [other for other in names if other != name]):
            yield f"protected.{name}", f"{name} is below another: once is enough"

    if spec.kind == "rl":
        yield (
            "protected",
            "a policy of kind rl sees what it was trained on: train it without these features",
        )
    if spec.unseen and CONTEXT not in spec.use:
        yield "protected", "the learner sees nothing of the context (use): leave it out"


def _ruled(spec: PolicySpec) -> Iterator[tuple[str, str]]:
    """Yield what the rules ask of users that no profile could ever say, and what boosts nothing."""
    signals = {} if spec.signals is msgspec.UNSET else spec.signals
    for target, looks in ({} if spec.rules is None else spec.rules.looks_by_field).items():
        for name in sorted(looks.activities):
            if spec.profile is msgspec.UNSET:
                yield target, f"what a user did is in the profile (profile.{name}): set profile"
            elif name not in (known := {**spec.profile.types, **signal_types(signals)}):
                yield target, f"nobody does {name!r}: one of {', '.join(known)}"

    if spec.boost_cap is not msgspec.UNSET and not spec.boost:
        yield "boost_cap", "there are no boosts that it could cap: leave it out"
    if spec.boost is not msgspec.UNSET and not spec.boost:
        yield "boost", "it boosts nothing: leave it out"
    if spec.page == Page():
        yield "page", "it has no rule: leave it out"
    if spec.placements is not msgspec.UNSET and not spec.placements:
        yield "placements", "it places nothing: leave it out"


def _held(spec: PolicySpec) -> Iterator[tuple[str, str]]:
    """Yield quotas that hold nothing, or that cannot be held together."""
    if spec.quota is msgspec.UNSET:
        return
    if not spec.quota:
        yield "quota", "it says nothing of any item: leave it out"
    exposure = None if isinstance(spec.exposure, msgspec.UnsetType) else spec.exposure
    if why := contradiction(spec.quota, exposure, spec.filter_rule):
        yield "quota", why


def _seen(spec: PolicySpec) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the namespaces that the learner sees."""
    twice = [name for name, times in Counter(spec.use).items() if times > 1]
    if twice:
        yield "use", f"{twice[0]} stands twice: once is enough"

    if spec.kind == "mixture" and not set(OF_ACTIONS) <= set(spec.use):
        meant = "the actions of a mixture are its sources, whatever use says"
        yield "use", f"{meant}: only context may be left out"

    # A bias per action tells them apart without any feature.
    if not spec.learner.tells_actions_apart and not set(OF_ACTIONS) & set(spec.use):
        reason = "nothing in use tells one action from another, so nothing can be learned"
        yield "use", f"{reason}: add item or features"


def _present(spec: PolicySpec) -> list[str]:
    """Return the namespaces that the learner sees."""
    seen = OF_SOURCES if spec.kind == "mixture" else OF_ACTIONS
    return [name for name in spec.use if name == CONTEXT or name in seen]
