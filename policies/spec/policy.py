"""The policy spec: everything that a policy is made of, and which of it goes together."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from bandits.errors import SpecError
from bandits.exploration import (
    EpsilonGreedy,
    Exploration,
    Fraction,
    Greedy,
    LinTs,
    Softmax,
    VwExploration,
)
from bandits.features.namespaces import NAMESPACES, NamespaceName
from bandits.learner_config import LearnerConfig
from bandits.learner_kinds import LearnerKind
from bandits.log.codec import digest
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
from policies.rules.boosts import BOOST_CAP, MAX_BOOST, Boost
from policies.rules.conditions import Condition
from policies.rules.filters import FilterRule
from policies.rules.pages.page import Page
from policies.rules.placements import Placement
from policies.rules.policy_rules import PolicyRules
from policies.rules.quotas.quota import Exposure, Quota
from policies.spec.modes import APPRENTICE, IMITATION, check_mode
from policies.spec.personalizer import PersonalizerSettings
from policies.spec.refresh import Refresh
from policies.spec.sources import ArtifactSource, Name, RlSource, Source, TrendingSource
from policies.typed_yaml import choices

UNIFORM = "uniform"
MOST_RULES = 500
"""Boosts, and quotas, of a policy: each is asked of every candidate of a request."""
PRIOR_STRENGTH = 0.1
"""How many interactions a row of a prior is worth where the spec does not say."""


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
        protected: features of the context that the learner goes by only where it is said by name:
            ``{gender: report, age: feature}``. One that is for ``report`` is logged, for reports
            and rules, and the learner sees nothing of it. A name stands for all below it, too.
        filter: what may be chosen: a condition (CEL) over ``item``, ``context``, ``profile`` and
            ``time``, or more about one. What it refuses has no probability.
        boost: what is added to the scores of some items, in units of the reward, before anything
            has a probability: ``[{when: item.season == "new", by: 0.2}]``; not of what the holdout
            is served. At most 500.
        boost_cap: how much all boosts of an item together add at most, or take away.
        quota: which share of what is shown groups of items have at least, or at most:
            ``[{when: item.season == "new", at_least: 0.2, within: 1h}]``; not of what the holdout
            is served. At most 500.
        exposure: which share each value of a feature of items has at least: ``{group: provider,
            floor: 0.05}``.
        page: what may stand beside what on a page of several slots, which may be shorter for it:
            ``{most: {brand: 2}, diversity: {by: genre, weight: 0.1}}``.
        placements: items that stand in a slot of the page for some time, whoever asks and whatever
            was learned: ``[{item: i9, slot: 0, from: 2026-12-01T00:00:00Z, when: …}]``. They have
            no probability, and nothing is learned of them.
        mode: ``online`` (the policy decides; what is meant where it is left out) or ``apprentice``:
            the caller's choice is served, and logged as what it was; the policy learns beside it.
        learn: what an apprentice learns: the ``rewards`` of what was served, or ``imitation``: 1
            where its own choice was the one that was served, else 0.
        baseline: the source whose best is served beside an apprentice, where the request names
            nothing; without it, the first of the actions.
        personalizer: what clients of Azure AI Personalizer have set that nothing else says.
        shadow: other policies that follow the log and serve nobody, each a spec or the file of one:
            ``[{name: greedy, exploration: {kind: greedy}}, next.yaml]``. Of a shadow's spec only
            the model counts: ``kind``, ``use``, ``learner``, ``exploration``, ``within``, ``floor``
            and ``prior``; one of kind ``rl`` has ``model`` besides, the file that ``banditloop
            train rl`` wrote. They are never logged.
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
    protected: dict[str, Literal["report", "feature"]] | msgspec.UnsetType = msgspec.UNSET
    filter: FilterRule | Condition | msgspec.UnsetType = msgspec.UNSET
    boost: Annotated[list[Boost], msgspec.Meta(max_length=MOST_RULES)] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    boost_cap: Annotated[float, msgspec.Meta(gt=0, le=MAX_BOOST)] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    quota: Annotated[list[Quota], msgspec.Meta(max_length=MOST_RULES)] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    exposure: Exposure | msgspec.UnsetType = msgspec.UNSET
    page: Page | msgspec.UnsetType = msgspec.UNSET
    placements: list[Placement] | msgspec.UnsetType = msgspec.UNSET
    signals: Signals | msgspec.UnsetType = msgspec.UNSET
    on_change: OnChange | msgspec.UnsetType = msgspec.UNSET
    mode: Literal["online", "apprentice"] | msgspec.UnsetType = msgspec.UNSET
    learn: Literal["rewards", "imitation"] | msgspec.UnsetType = msgspec.UNSET
    baseline: Name | msgspec.UnsetType = msgspec.UNSET
    personalizer: PersonalizerSettings | msgspec.UnsetType = msgspec.UNSET
    shadow: list[str | dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET

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
        # What the learner is taught follows from the signals.
        check_signals({} if self.signals is msgspec.UNSET else self.signals)
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
        check_mode(self)
        _ = self.rules

    @property
    def encoded(self) -> bytes:
        """The blob of this spec, without standbys, folders, profiles and refreshes.

        Standbys and folders differ by machine. Profiles name users, and nothing that a record holds
        has to be derived from them again. What a refresh changes has entries of its own.
        """
        named = with_paths(self, lambda path: Path(path).name)
        logged = msgspec.structs.replace(named, learner=self.learner.without_standbys)
        fields = msgspec.to_builtins(logged, order="deterministic")
        del fields["profiles"]
        fields.pop("refresh", None)
        fields.pop("on_change", None)
        if not self.is_apprentice:
            fields.pop("mode", None)
        fields.pop("shadow", None)

        # As if there were no such field: the log of one partition knows of none.
        if self.partitions == 1:
            del fields["partitions"]
        return msgspec.json.encode(fields)

    @property
    def is_apprentice(self) -> bool:
        """Whether somebody else's choice is served, and the policy learns beside it."""
        return self.mode == APPRENTICE

    @property
    def imitates(self) -> bool:
        """Whether what it learns is to choose as the baseline does."""
        return self.is_apprentice and self.learn == IMITATION

    @property
    def unseen(self) -> tuple[str, ...]:
        """The features of the context that are logged, and that the learner does not see."""
        if self.protected is msgspec.UNSET:
            return ()
        return tuple(name for name, use in self.protected.items() if use == "report")

    @property
    def rule(self) -> JoinRule:
        """How rewards join its decisions: ``join``, and what ``signals`` says."""
        return (
            self.join if self.signals is msgspec.UNSET else signalled_rule(self.join, self.signals)
        )

    @property
    def filter_rule(self) -> FilterRule | None:
        """What may be chosen; None: all that there is."""
        if isinstance(self.filter, msgspec.UnsetType):
            return None
        return self.filter if isinstance(self.filter, FilterRule) else FilterRule(self.filter)

    @property
    def rules(self) -> PolicyRules | None:
        """What decisions are made under, compiled; None: there are no rules."""
        boosts = [] if isinstance(self.boost, msgspec.UnsetType) else self.boost
        cap = BOOST_CAP if isinstance(self.boost_cap, msgspec.UnsetType) else self.boost_cap
        quotas = [] if isinstance(self.quota, msgspec.UnsetType) else self.quota
        exposure = None if isinstance(self.exposure, msgspec.UnsetType) else self.exposure
        page = None if isinstance(self.page, msgspec.UnsetType) else self.page
        placements = [] if isinstance(self.placements, msgspec.UnsetType) else self.placements
        if self.filter_rule is None and not (boosts or quotas or exposure or page or placements):
            return None
        return PolicyRules(self.filter_rule, boosts, cap, quotas, exposure, page, placements)

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
        basis: list[object] = [self.kind, self.use, self.learner.basis]
        if self.unseen:
            basis.append(sorted(self.unseen))
        return digest(msgspec.json.encode(basis, order="deterministic"))


def with_paths(spec: PolicySpec, change: Callable[[str], str]) -> PolicySpec:
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
    shadow = spec.shadow
    if shadow is not msgspec.UNSET:
        shadow = [
            change(said) if isinstance(said, str) else with_model(said, change) for said in shadow
        ]
    return msgspec.structs.replace(
        spec, artifact=artifact, profiles=profiles, sources=sources, refresh=refresh, shadow=shadow
    )


def with_model(shadow: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """Return what a spec says of a shadow, with the path of its network changed.

    Args:
        shadow: its fields.
        change: what is to be made of a path.
    """
    path = shadow.get("model")
    return {**shadow, "model": change(path)} if isinstance(path, str) else shadow


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
    for field in ("boost", "quota", "exposure"):
        if getattr(spec, field) is not msgspec.UNSET:
            _check_boosted(spec, field)
    if spec.page is not msgspec.UNSET and spec.page.diversity is not msgspec.UNSET:
        _check_boosted(spec, "page.diversity")
    if learner.learns and not learner.corrects:
        _check_uncorrected(learner, spec.rule)
    if isinstance(learner, RidgeConfig):
        _check_slotted(learner, spec.rule)


def _check_boosted(spec: PolicySpec, field: str) -> None:
    """Refuse what is added to scores where there is no score of an item to add it to."""
    if spec.kind == "mixture":
        raise SpecError(
            "the actions of a mixture are its sources, of which no item has a score of its own to"
            " add to: make it a blend",
            field,
        )
    if isinstance(spec.exploration, VwExploration):
        raise SpecError(
            "Vowpal Wabbit explores by its own scores, to which nothing can be added: choose"
            " another exploration.kind",
            field,
        )


def _check_users(spec: PolicySpec) -> None:
    """Refuse what is said of signals and of users that nobody knows."""
    signals = {} if spec.signals is msgspec.UNSET else spec.signals
    if spec.on_change is not msgspec.UNSET:
        check_on_change(
            spec.on_change,
            signals,
            learns=spec.learner.learns,
            parts=spec.partitions,
            sums=spec.learner.merges == "sums",
        )

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

    if rule.learn == "as_it_arrives" and rule.page_reward is not msgspec.UNSET:
        raise SpecError(
            f"a {learner.kind} learner cannot correct what it has learned of a page when another of"
            " its slots earns something: use at_close",
            "join.learn",
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


def _check_slotted(learner: RidgeConfig, rule: JoinRule) -> None:
    """Refuse to explain by what a slot is what all slots earned together."""
    for field in ("examination", "slot_biases"):
        if getattr(learner, field) is msgspec.UNSET or rule.page_reward is msgspec.UNSET:
            continue
        raise SpecError(
            f"what a page earns does not come of what one slot is: leave out either this or"
            f" learner.{field}",
            "join.page_reward",
        )
