"""The policy spec: what a YAML file says of a policy.

Strict: an unknown key is an error that names it.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from bandits.durations import duration_ms
from bandits.errors import InvalidFieldError, SpecError
from bandits.exploration import (
    EpsilonGreedy,
    Exploration,
    Fraction,
    Greedy,
    LinTs,
    Softmax,
)
from bandits.features.namespaces import NAMESPACES, NamespaceName
from bandits.learner_config import LearnerConfig
from bandits.learner_kinds import LearnerKind
from bandits.log.codec import MALFORMED, digest
from bandits.log.join import JoinRule
from bandits.log.join_rule import SignalledRule
from bandits.ridge.config import RidgeConfig
from bandits.values import MAX_STRENGTH
from policies.profiles.options import ProfileOptions, Repeat, check_repeat
from policies.profiles.signals import (
    OnChange,
    Signals,
    check_on_change,
    check_signals,
    signal_types,
    signalled_rule,
)
from policies.refresh_options import Refresh
from policies.typed_yaml import as_type, choices, parse_yaml

UNIFORM = "uniform"
SHORTEST_HALF_LIFE_MS = 1000
PRIOR_STRENGTH = 0.1
"""How many interactions a row of a prior is worth where the spec does not say."""

Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}$(?!\n)")]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$(?!\n)")]


class ArtifactSource(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="artifact", tag_field="kind"
):
    """A source that ``banditloop train`` has fitted.

    Attributes:
        name: the source's name in the artifact.
    """

    name: Name


class RemoteSource(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="remote", tag_field="kind"
):
    """Any HTTP service that answers ids and scores.

    Attributes:
        name: the source's name in the log, in scores and in metrics.
        url: the service's address, http or https; it gets a POST.
        timeout_ms: how long a decision waits for the service, all attempts included.
        retries: how often a failed request is repeated within that time.
        send_user_id: whether the service is told the user's id, in clear.
        send_context: whether the service is told the features of the context, all of them.
    """

    name: Name
    url: str
    timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 50
    retries: Annotated[int, msgspec.Meta(ge=0, le=5)] = 1
    send_user_id: bool = False
    send_context: bool | msgspec.UnsetType = msgspec.UNSET


class RlSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="rl", tag_field="kind"):
    """A policy of kind rl as a source: it proposes nothing, and scores what the others propose.

    Attributes:
        name: the source's name in the log, in scores and in metrics.
        model: the file that ``banditloop train rl`` wrote, relative to the spec's.
        digest: the digest of the file's bytes, which ``banditloop train rl`` prints.
    """

    name: Name
    model: str
    digest: Digest


class ContentSource(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="content", tag_field="kind"
):
    """A source that proposes items like those of the user's history, also such as are new.

    It needs no training. What ``banditloop train`` finds out of texts and vectors is another
    source: ``{kind: artifact, name: content}``.

    Attributes:
        name: the source's name in the log, in scores and in metrics.
        vector: the name of the items' own vectors by which they are compared.
        text: the names of metadata and features that are read as one text of an item.
        encoder: what makes a vector of a text: ``wordllama`` (``pip install banditloop[text]``).
    """

    name: Name
    vector: str | None = None
    text: list[str] = msgspec.field(default_factory=list)
    encoder: Literal["wordllama"] | None = None

    def __post_init__(self) -> None:
        """Refuse one that compares nothing."""
        if bool(self.text) != (self.encoder is not None):
            raise SpecError(
                f"source {self.name!r}: text and encoder go together; what train has fitted on"
                " texts is {kind: artifact, name: content}",
                "sources.encoder" if self.text else "sources.text",
            )
        if self.vector is None and not self.text:
            raise SpecError(
                f"source {self.name!r} compares nothing: name a vector, or text and encoder; what"
                " train has fitted is {kind: artifact, name: content}",
                "sources.vector",
            )


class _Fading(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A source whose scores halve with a half-life."""

    name: Name
    half_life: str

    def __post_init__(self) -> None:
        """Refuse what is no half-life."""
        try:
            half_life_ms = self.half_life_ms
        except InvalidFieldError as error:
            raise SpecError(
                f"source {self.name!r}: {error.message}", "sources.half_life"
            ) from error
        if half_life_ms < SHORTEST_HALF_LIFE_MS:
            raise SpecError(
                f"source {self.name!r}: a half-life is 1s at least, not {self.half_life}",
                "sources.half_life",
            )

    @property
    def half_life_ms(self) -> int:
        """The half-life in milliseconds, the log's unit of time."""
        return duration_ms(self.half_life)


class TrendingSource(_Fading, frozen=True, tag="trending", tag_field="kind"):
    """A source that proposes what this policy's own rewards say is in demand now, whoever asks.

    The fold of the log keeps the counts, so they are as exact as the model. What ``banditloop
    train`` finds in events is another source: ``{kind: artifact, name: trending}``.

    Attributes:
        name: the source's name in the log, in scores and in metrics.
        half_life: after so long a reward counts half, as ``6h``: a number and s, m, h, d or w.
    """

    half_life: str = "1d"


class FreshSource(_Fading, frozen=True, tag="fresh", tag_field="kind"):
    """A source that proposes the newest items among what a user likes; it needs no training.

    Attributes:
        name: the source's name in the log, in scores and in metrics.
        half_life: the age at which an item's score is half of that of a new one, as ``12h``: a
            number and s, m, h, d or w.
    """

    half_life: str = "7d"


Source = ArtifactSource | RemoteSource | RlSource | ContentSource | TrendingSource | FreshSource


class Holdout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A share of the traffic served by a fixed policy, for a live uplift with an interval.

    Attributes:
        fraction: the share that is held out.
        policy: ``uniform``, or a source's name: its best candidates, in order.
        field: what is hashed to assign a decision: ``user_id`` or the name of a context feature;
            the event_id where a request lacks it.
    """

    fraction: Fraction
    policy: str = UNIFORM
    field: str = "user_id"


class Prior(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much the artifact's prior counts: what a model is taught before its first decision.

    Attributes:
        strength: how many interactions each of the prior's rows is worth.
    """

    strength: Annotated[float, msgspec.Meta(gt=0, le=MAX_STRENGTH)] = PRIOR_STRENGTH


class PolicySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a policy is made of.

    Attributes:
        name: the policy's name in URLs, in the log and in file names.
        kind: ``blend`` (items are the actions, and every source's score is a feature), ``mixture``
            (sources are the actions) or ``rl`` (items are the actions, scored by a network that was
            trained on sessions).
        sources: where candidates come from; without any, a request brings its actions.
        artifact: the directory that ``banditloop train`` wrote, relative to the spec's file, or its
            URI (``s3://bucket/prefix``, any that pyarrow opens).
        profiles: the file in which ``banditloop train`` wrote what is known of users, relative to
            the spec's file, or its URI; where it is, and what it holds, is never logged.
        limit: how many candidates each source is asked for.
        use: the feature namespaces that the learner sees.
        learner: what learns.
        exploration: how scores become probabilities.
        within: how a source of a mixture chooses among its own candidates.
        floor: the total probability that is spread evenly; each action gets at least floor / K.
        join: how rewards join decisions.
        signals: what rewards may name as their kind, and what each is worth: a weight, or
            ``{weight: 10, window: 7d, aggregation: sum}``. The reward of a slot is the sum.
        on_change: what becomes of what was learned when the weights change: ``keep`` it, or
            ``relearn`` the log under the new ones beside, while learning goes on. Never logged.
        holdout: a share of the traffic that a fixed policy serves.
        partitions: over how many logs, each with its own learner, the policy's events are split by
            their event_id (docs/explanation/exact.md); it stays as it is for the life of the log.
        prior: how much the artifact's prior counts, or ``none``: a model begins with nothing.
        refresh: when the artifact's sources are trained anew while the policy is served; without
            it, never, unless by ``banditloop refresh``. It is never logged.
        space: the name of what several policies share: users, what they do, items; by default that
            of the policy. It stays as it is for the life of the log.
        profile: what is kept of each user, and read when they ask; without it nothing is.
        repeat: what is not offered again to whom: by what the user did (``purchased: never``), or
            how often it was shown (``shown: {times: 3, within: 1d}``).
        context_private: names of features of the context that are never logged, so never learned
            from: remote sources, sources of kind rl and the holdout are shown them. A name stands
            for all features below it, too: ``home`` for ``home.street``.
    """

    name: Name
    kind: Literal["blend", "mixture", "rl"] = "blend"
    sources: list[Source] = msgspec.field(default_factory=list)
    artifact: str | None = None
    profiles: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 30
    use: list[NamespaceName] = msgspec.field(default_factory=lambda: list(NAMESPACES))
    learner: LearnerKind = msgspec.field(default_factory=RidgeConfig)
    exploration: Exploration = msgspec.field(default_factory=LinTs)
    within: Softmax | EpsilonGreedy | Greedy = msgspec.field(default_factory=Softmax)
    floor: Fraction = 0.01
    join: JoinRule = msgspec.field(default_factory=JoinRule)
    holdout: Holdout | None = None
    partitions: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    prior: Prior | Literal["none"] | msgspec.UnsetType = msgspec.UNSET
    refresh: Refresh | msgspec.UnsetType = msgspec.UNSET
    space: Name | msgspec.UnsetType = msgspec.UNSET
    profile: ProfileOptions | msgspec.UnsetType = msgspec.UNSET
    repeat: Repeat | msgspec.UnsetType = msgspec.UNSET
    context_private: list[str] | msgspec.UnsetType = msgspec.UNSET
    signals: Signals | msgspec.UnsetType = msgspec.UNSET
    on_change: OnChange | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        """Refuse combinations that cannot work."""
        names = [source.name for source in self.sources]
        if len(set(names)) != len(names):
            raise SpecError("two sources share a name", "sources")

        crossed = {name for pair in self.learner.crossed for name in pair}
        if unknown := sorted(crossed.difference(NAMESPACES)):
            known = choices(unknown[0], NAMESPACES)
            raise SpecError(
                f"no namespace is called {unknown[0]!r}: {known}", "learner.interactions"
            )
        if self.kind == "mixture" and not names:
            raise SpecError("a mixture needs sources", "sources")
        _check_learner(self)

        if self.holdout is not None and self.holdout.policy not in (UNIFORM, *names):
            known = choices(self.holdout.policy, (UNIFORM, *names))
            raise SpecError(
                f"a holdout policy is {UNIFORM} or one of the sources: {known}", "holdout.policy"
            )

        if self.partitions > 1 and self.half_lives_ms:
            raise SpecError(
                "what is in demand is counted in one log: set partitions to 1, or leave out the"
                " sources of kind trending",
                "partitions",
            )

        # Whether the artifact has them, whoever opens it finds out.
        trained = any(isinstance(source, ArtifactSource) for source in self.sources)
        if trained and self.artifact is None:
            raise SpecError(
                "sources of kind artifact need the directory that banditloop train wrote",
                "artifact",
            )
        if self.refresh is not msgspec.UNSET and not trained:
            raise SpecError("there is no source of kind artifact to train anew", "refresh")
        _check_users(self)

    @property
    def encoded(self) -> bytes:
        """The blob of this spec, without standbys, folders, profiles and refreshes.

        Standbys and folders differ by machine. Profiles name users, and nothing that a record holds
        has to be derived from them again. What a refresh changes has entries of its own.
        """
        named = _with_paths(self, lambda path: Path(path).name)
        logged = msgspec.structs.replace(named, learner=self.learner.without_standbys)
        fields = msgspec.to_builtins(logged, order="deterministic")
        del fields["profiles"]
        fields.pop("refresh", None)
        fields.pop("on_change", None)

        # As if there were no such field: the log of one partition knows of none.
        if self.partitions == 1:
            del fields["partitions"]
        return msgspec.json.encode(fields)

    @property
    def rule(self) -> JoinRule:
        """How rewards join its decisions: ``join``, and what ``signals`` says."""
        return (
            self.join if self.signals is msgspec.UNSET else signalled_rule(self.join, self.signals)
        )

    @property
    def shares(self) -> str:
        """The name of the space that it shares with other policies, or has to itself."""
        return self.name if self.space is msgspec.UNSET else self.space

    @property
    def half_lives_ms(self) -> list[int]:
        """The half-lives of the sources that ask what is in demand now, each once, ascending."""
        trending = [source for source in self.sources if isinstance(source, TrendingSource)]
        return sorted({source.half_life_ms for source in trending})

    @property
    def prior_strength(self) -> float | None:
        """How many interactions a prior's row is worth, as the spec says it; 0: it wants none.

        None: the spec leaves it open.
        """
        if isinstance(self.prior, Prior):
            return self.prior.strength
        return 0.0 if self.prior == "none" else None

    @property
    def without_prior(self) -> "PolicySpec":
        """The spec of a policy that begins with nothing; itself where nobody would teach it."""
        if self.artifact is None or not self.learner.learns:
            return self
        return msgspec.structs.replace(self, prior="none")

    @property
    def digest(self) -> str:
        """The name of this spec in the log."""
        return digest(self.encoded)

    @property
    def model_digest(self) -> str:
        """The digest of what a learned model depends on; when it changes, learning starts anew."""
        return digest(
            msgspec.json.encode([self.kind, self.use, self.learner.basis], order="deterministic")
        )


def _with_paths(spec: PolicySpec, change: Callable[[str], str]) -> PolicySpec:
    """Return the spec with every path changed."""
    sources = [
        msgspec.structs.replace(source, model=change(source.model))
        if isinstance(source, RlSource)
        else source
        for source in spec.sources
    ]
    refresh = spec.refresh
    if refresh is not msgspec.UNSET and refresh.data is not None:
        refresh = msgspec.structs.replace(refresh, data=change(refresh.data))
    artifact = None if spec.artifact is None else change(spec.artifact)
    profiles = None if spec.profiles is None else change(spec.profiles)
    return msgspec.structs.replace(
        spec, artifact=artifact, profiles=profiles, sources=sources, refresh=refresh
    )


def _check_learner(spec: PolicySpec) -> None:
    """Refuse a policy that its learner cannot be for."""
    learner = spec.learner
    if spec.kind not in learner.policy_kinds:
        raise SpecError(
            f"a learner of kind {learner.kind} is for policies of kind"
            f" {' or '.join(learner.policy_kinds)}, not for kind {spec.kind}",
            "learner.kind",
        )

    # Partitions learn apart, and are merged.
    if spec.partitions > 1 and not learner.learns:
        raise SpecError(
            f"a policy of kind {spec.kind} learns nothing from its log: there is nothing to split",
            "partitions",
        )
    if spec.partitions > 1 and learner.merges == "never":
        raise SpecError(
            f"models of a {learner.kind} learner do not merge: set partitions to 1", "partitions"
        )

    learner.check_exploration(spec.exploration)
    if learner.learns and not learner.corrects:
        _check_uncorrected(learner, spec.rule)


def _check_users(spec: PolicySpec) -> None:
    """Refuse signals that cannot be, and what is said of users that nobody knows."""
    signals = {} if spec.signals is msgspec.UNSET else spec.signals
    check_signals(signals)
    if spec.on_change is not msgspec.UNSET:
        check_on_change(spec.on_change, signals, learns=spec.learner.learns, parts=spec.partitions)

    if spec.repeat is not msgspec.UNSET:
        if spec.profile is msgspec.UNSET:
            raise SpecError(
                "what a user did and was shown is in the profile: set profile", "repeat"
            )
        check_repeat(spec.repeat, {**spec.profile.types, **signal_types(signals)})


def _check_uncorrected(learner: LearnerConfig, rule: JoinRule) -> None:
    """Refuse a join that would correct what the learner has learned, where it cannot."""
    if rule.late == "correct":
        raise SpecError(
            f"a {learner.kind} learner cannot correct what it has learned: use ignore", "join.late"
        )
    if rule.learn == "as_it_arrives" and isinstance(rule, SignalledRule):
        raise SpecError(
            f"a {learner.kind} learner cannot correct what it has learned when another signal"
            " comes: use at_close",
            "join.learn",
        )
    if rule.learn == "as_it_arrives" and rule.aggregation != "first":
        raise SpecError(
            f"a {learner.kind} learner learns as_it_arrives with aggregation: first only",
            "join.learn",
        )


def decode_spec(data: bytes) -> PolicySpec:
    """Return the spec in a blob.

    Raises:
        SpecError: it is not one.
    """
    try:
        return msgspec.json.decode(data, type=PolicySpec)
    except MALFORMED as error:
        raise SpecError(*_readable(error)) from error


def load_spec(path: Path) -> PolicySpec:
    """Read a spec from a YAML file; its paths become absolute.

    Raises:
        SpecError: no such file, not YAML, unknown key, wrong type, or a combination that cannot
            work; in one line.
    """
    try:
        raw = parse_yaml(path.read_bytes())
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}", "spec") from error
    except InvalidFieldError as error:
        raise SpecError(f"{path}: {error.message}", "spec") from error
    return read_spec(raw, str(path), path.parent)


def spec_of(raw: Any) -> PolicySpec:
    """Return the spec that YAML has been parsed to, its paths as they stand there.

    Raises:
        SpecError: as ``load_spec``; ``target`` is the field.
    """
    from policies.spec_checks import admit  # noqa: PLC0415 - which imports this module

    try:
        _demand_finite(raw)
        return admit(as_type(raw, PolicySpec))
    except InvalidFieldError as error:
        raise SpecError(error.message, error.target or "spec") from error
    except RecursionError as error:
        raise SpecError("an alias refers to itself", "spec") from error


def read_spec(raw: Any, where: str, folder: Path) -> PolicySpec:
    """Return the spec that YAML has been parsed to; its paths become absolute.

    Args:
        raw: what the YAML holds.
        where: what an error begins with.
        folder: the folder that paths are relative to.

    Raises:
        SpecError: as ``load_spec``; it begins with ``where``.
    """
    try:
        spec = spec_of(raw)
    except SpecError as error:
        raise SpecError(f"{where}: {error.target}: {error.message}", error.target) from error
    return _with_paths(
        spec, lambda given: given if "://" in given else str((folder / given).resolve())
    )


def _demand_finite(raw: Any, at: str = "") -> None:
    """Refuse NaN and infinity anywhere; ``at`` is the path of the field."""
    if isinstance(raw, float) and not math.isfinite(raw):
        raise SpecError("not a finite number", at.removeprefix("."))
    if isinstance(raw, dict):
        for key, value in raw.items():
            _demand_finite(value, f"{at}.{key}")
    elif isinstance(raw, list):
        for i, value in enumerate(raw):
            _demand_finite(value, f"{at}[{i}]")


def _readable(error: Exception) -> tuple[str, str]:
    """Return what an error of msgspec says, and the path of the field it is about."""
    message, _, where = str(error).partition(" - at `")
    return message, where.rstrip("`").removeprefix("$").removeprefix(".") or "spec"
