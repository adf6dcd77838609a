"""What a spec has to be where somebody brings it in: nothing in it is without effect, and its learner learns.

Not asked of the spec of a log: that was brought in to the build that wrote it, and means now what
it meant then.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from bandits.errors import SpecError
from bandits.exploration import VwExploration
from bandits.ridge.learner import RidgeConfig
from bandits.rl.network import RlConfig
from bandits.vw.accepted import INTERACTIONS, KNOWN, check_arguments
from bandits.vw.weights import read_arguments
from policies.spec import NamespaceName, PolicySpec, RlSource, VwConfig

OF_ACTIONS: tuple[NamespaceName, ...] = ("item", "features", "scores")
OF_SOURCES = ("item", "scores")
"""What the actions of a mixture have."""


def admit(spec: PolicySpec) -> PolicySpec:
    """The spec.

    Raises: SpecError: a field would be without effect, or the learner could not tell one action
        from another; ``target``
            is the field, and the message says what to do.
    """
    for target, message in _idle(spec):
        raise SpecError(message, target)
    check_learner(spec)
    return spec


def check_learner(spec: PolicySpec) -> None:
    """Of ``admit`` what every policy is held to that learns, also one made in Python.

    Raises: SpecError: VW's arguments were not found to learn, or the exploration could not act on
        what is learned.
    """
    if isinstance(spec.learner, VwConfig):
        own = isinstance(spec.exploration, VwExploration)
        check_arguments(
            spec.learner.args, own_exploration=own, default_reward=spec.join.default_reward
        )


def _given(struct: Any, field: str) -> bool:
    """Whether a field has another value than its default."""
    return bool(getattr(struct, field) != getattr(type(struct)(**_required(struct)), field))


def _required(struct: Any) -> dict[str, Any]:
    required = len(struct.__struct_fields__) - len(struct.__struct_defaults__)
    return {name: getattr(struct, name) for name in struct.__struct_fields__[:required]}


def _idle(spec: PolicySpec) -> Iterator[tuple[str, str]]:
    """Fields that would be without effect, and what to do about each."""
    if _given(spec, "limit") and all(isinstance(source, RlSource) for source in spec.sources):
        yield (
            "limit",
            "no source proposes candidates, of which there could be too many: leave limit out",
        )
    if _given(spec, "within") and spec.kind != "mixture":
        yield (
            "within",
            (
                f"within says how the sources of a mixture choose, and this is a {spec.kind}: leave"
                " it out"
            ),
        )
    yield from _seen(spec)
    learner = spec.learner
    if isinstance(learner, RidgeConfig):
        if _given(learner, "bias_l2") and not learner.action_bias:
            yield (
                "learner.bias_l2",
                "there is no action_bias that it could hold back: leave bias_l2 out",
            )
        yield from _crossed(spec, learner)
    if isinstance(learner, VwConfig) and _given(learner, "args"):
        yield from _letters(spec, learner)
    if isinstance(learner, RlConfig):
        for field in ("learn", "late"):
            if _given(spec.join, field):
                yield (
                    f"join.{field}",
                    f"a policy of kind rl learns nothing from its log: leave {field} out",
                )


def _seen(spec: PolicySpec) -> Iterator[tuple[str, str]]:
    twice = [name for name, times in Counter(spec.use).items() if times > 1]
    if twice:
        yield "use", f"{twice[0]} stands twice: once is enough"
    if spec.kind == "mixture" and not set(OF_ACTIONS) <= set(spec.use):
        yield (
            "use",
            (
                "the actions of a mixture are its sources, whatever use says: only context may be"
                " left out"
            ),
        )
    biased = isinstance(spec.learner, RidgeConfig) and spec.learner.action_bias
    if not biased and not set(OF_ACTIONS) & set(spec.use):
        yield (
            "use",
            (
                "nothing in use tells one action from another, so nothing can be learned: add item or"
                " features"
            ),
        )


def _present(spec: PolicySpec) -> list[str]:
    """The namespaces that the learner sees."""
    seen = OF_SOURCES if spec.kind == "mixture" else OF_ACTIONS
    return [name for name in spec.use if name == "context" or name in seen]


def _crossed(spec: PolicySpec, learner: RidgeConfig) -> Iterator[tuple[str, str]]:
    present = _present(spec)
    for first, second in learner.interactions:
        missing = [name for name in (first, second) if name not in present]
        if missing:
            yield (
                "learner.interactions",
                f"[{first}, {second}] crosses nothing: the learner does not see {missing[0]}",
            )
    if len({frozenset(pair) for pair in learner.interactions}) < len(learner.interactions):
        yield "learner.interactions", "two namespaces are crossed twice: once is enough"


def _letters(spec: PolicySpec, learner: VwConfig) -> Iterator[tuple[str, str]]:
    present = _present(spec)
    for option, values in read_arguments(learner.args, KNOWN).items():
        for value in values if option in INTERACTIONS else ():
            missing = [
                letter
                for letter in value
                if letter != ":" and letter not in {name[0] for name in present}
            ]
            if missing:
                seen = f"the learner sees {', '.join(present)}, and nothing else that begins with {missing[0]}"
                yield "learner.args", f"--{option} {value} changes nothing: {seen}"
