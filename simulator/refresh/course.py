"""The course of a refresh: read the log, train apart, compare, and say whether to serve it."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from bandits.errors import LackingItemsError, NothingToLearnError, SpecError
from bandits.log.join import JoinedDecision
from bandits.log.positions import position_ms
from bandits.log.records import LogEntry
from bandits.types import Snapshot
from policies.artifacts.fitted_with import changes_told
from policies.artifacts.learner_model import TrainedModel
from policies.artifacts.source_artifact import Artifact
from policies.data.coded import CodedEvents
from policies.items.timeline import ItemTimeline
from policies.pseudonyms import pseudonym
from policies.spec import ArtifactSource, PolicySpec
from simulator.refresh.activity import SpaceActivity
from simulator.refresh.contenders import CURRENT, TAUGHT_AGAIN, Contender
from simulator.refresh.log_comparison import (
    CatalogueOf,
    LogComparison,
    comparable,
    scale_shifts,
)
from simulator.refresh.report import Measure, RefreshReport, ScaleShift, why_refused
from simulator.refresh.rescoring import PastProfiles, Rescorer, under_pseudonyms
from simulator.refresh.reteach import TaughtAgain, teach_again
from simulator.refresh.rewarded import RewardedEvents
from simulator.refresh.trainer import EVENTS_UNTIL, TrainingRequest
from simulator.refresh.training import train_apart
from simulator.refresh.training_data import before, catalogue_for, joined_events
from simulator.refresh.user_comparison import compare_on_users, held_out_users

SHARE = 0.1
"""The share of the log's decisions that artifacts are compared on, the newest."""
MOST_COMPARED = 5_000
FEWEST = 200
"""Decisions without which nothing is said."""
MOST_TAUGHT = 50_000
"""Decisions that a blend's weights are taught again by, the newest before those."""
SAMPLED = 500
"""Decisions by which it is found whether the scale of scores has moved."""

Progress = Callable[[str, int, int], None]
"""Told (what is being done, steps done, steps in all; 0: nobody knows)."""


Train = Callable[..., Artifact]
"""Makes an artifact of a request, events and items, as ``train_apart`` does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshOptions:
    """How to refresh.

    Attributes:
        sources: what to train; those that the spec names, by default.
        most_lacking: the share of an artifact's items that the catalogue may lack.
        seed: of all random numbers.
        jobs: processes that sources are fitted in.
        address: a Ray cluster that they are fitted on instead.
        memory_bytes: how much the process that trains may take; 0: as much as there is.
        niceness: how far it yields to others.
        compared: decisions of the log that artifacts are compared on, at most.
        may_teach: whether the blend's weights may be taught again.
    """

    sources: Sequence[str] = ()
    most_lacking: float = 0.5
    seed: int = 0
    jobs: int = 1
    address: str | None = None
    memory_bytes: int = 0
    niceness: int = 10
    compared: int = MOST_COMPARED
    may_teach: bool = True


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PolicyState:
    """A policy as it is served, and how its log is read.

    Attributes:
        spec: the spec in force, which the served model was learned for.
        salt: the service's.
        snapshot: the model that serves.
        snapshot_before: gives the newest model that is stored of before a time, in ms of the log's
            clock; None if there is none.
        serving: the artifact that serves; None if it cannot be had.
        items: what there is to offer now.
        catalogue_of: gives the catalogue that a decision names.
        decisions: reads the window's decisions with their rewards, in the order of the log; may be
            called again.
        from_ms: where the window begins.
        data: events of a data set beside the log, by the users' own ids; None for none.
        activity: reads what users did outside of decisions in the window, in the order of the log;
            None: the policy has no profiles.
        persons: gives what each of some users is logged under, of those who are known.
    """

    spec: PolicySpec
    salt: bytes
    snapshot: Snapshot
    serving: Artifact | None
    items: ItemTimeline
    catalogue_of: CatalogueOf
    decisions: Callable[[], Iterable[JoinedDecision]]
    snapshot_before: Callable[[int], Snapshot | None] = lambda _: None
    from_ms: int = 0
    data: CodedEvents | None = None
    activity: Callable[[], Iterable[LogEntry]] | None = None
    persons: Callable[[Sequence[str]], Mapping[str, str]] = lambda _: {}


class Refreshed(NamedTuple):
    """The result of a refresh: the artifact, perhaps a warm start, and the report.

    ``events``: all of them, with those that training did not see: what is known of users now.
    """

    artifact: Artifact
    model: TrainedModel | None
    report: RefreshReport
    events: CodedEvents


class _Slice(NamedTuple):
    """The newest decisions, which training does not see: from ``cut_ms`` on; 0: it sees all.

    ``seen_ms``: up to when it sees the log.
    """

    decisions: list[JoinedDecision]
    cut_ms: int
    seen_ms: int
    notes: list[str]


@dataclass(slots=True, eq=False)
class _Compared:
    """The findings of a comparison."""

    measures: list[Measure] = field(default_factory=list)
    shifts: list[ScaleShift] = field(default_factory=list)
    taught: TaughtAgain | None = None
    notes: list[str] = field(default_factory=list)


def refresh_sources(
    state: PolicyState,
    options: RefreshOptions,
    progress: Progress = lambda *_: None,
    *,
    train: Train = train_apart,
) -> Refreshed:
    """Train a policy's sources anew, and compare the blend with them with the one that serves.

    Nothing is stored.

    Args:
        state: the policy.
        options: how to.
        progress: told of steps.
        train: trains the artifact; see ``train_apart``.

    Raises:
        NothingToLearnError: there is no event to train on.
        LackingItemsError: too many of the artifact's items are not in the catalogue.
        RefreshError: training died.
        ArtifactError: a source cannot be trained on these events.
        SpecError: there is nothing to train, or a source that the policy serves is left out.
    """
    names = _sources(state.spec, options.sources)
    found = _read(state, options, progress)
    part = _slice(found, state.serving, options.compared)
    log_events, did = found.coded(), _activity(state)
    data = [] if state.data is None else [under_pseudonyms(state.data, state.salt)]
    if did is not None:
        log_events = joined_events([log_events, did.coded()])
    events = joined_events([*data, log_events])
    if did is not None:
        did.into.update(_persons(state))
        events = did.of_persons(events)
    early = before(events, part.cut_ms) if part.cut_ms else events
    if not len(early):
        raise NothingToLearnError(
            "no rewarded decision names a user: let requests carry user_id, or give a data set"
            " (--data)"
            if found.anonymous
            else "the log has no rewarded decision in this window, and no data set was given: wait"
            " for rewards, take a longer --window, or give --data",
            "log",
        )

    listed: list[dict[str, Any]] = msgspec.json.decode(state.items.encoded)
    items, lacking = catalogue_for(listed, early)
    notes = [*part.notes, *_check_items(state, early, lacking, options.most_lacking)]
    changes = {
        source: values for source, values in changes_told(state.serving).items() if source in names
    }
    if changes:
        notes.append(f"fitted with what serves was fitted with: {', '.join(changes)}")
    began = time.perf_counter()
    artifact = train(
        TrainingRequest(
            sources=names,
            seed=options.seed,
            jobs=options.jobs,
            address=options.address,
            events_until_ms=part.seen_ms,
            memory_bytes=options.memory_bytes,
            niceness=options.niceness,
            changes=changes,
        ),
        early,
        items,
        progress=progress,
    )
    trained_s, began = time.perf_counter() - began, time.perf_counter()

    pasts = PastProfiles(events, {} if did is None else did.persons())
    compared = _compare(state, options, artifact, pasts, early, part, progress)
    weights = TAUGHT_AGAIN if compared.taught is not None else CURRENT
    why = why_refused([each for each in compared.measures if each.weights == weights])
    report = RefreshReport(
        policy=state.spec.name,
        outcome="refused" if why else "measured",
        artifact=artifact.version,
        serving=None if state.serving is None else state.serving.version,
        sources=names,
        events=len(early),
        log_events=int((log_events.time < part.cut_ms).sum()) if part.cut_ms else len(log_events),
        users=len(early.user_ids),
        items=len(early.item_ids),
        lacking=lacking,
        anonymous=found.anonymous,
        from_ms=state.from_ms,
        cut_ms=part.seen_ms,
        weights=weights,
        measures=compared.measures,
        shifts=compared.shifts,
        notes=[*notes, *compared.notes],
        train_s=trained_s,
        compare_s=time.perf_counter() - began,
        why=why,
    )
    return Refreshed(artifact, compared.taught and compared.taught.model, report, events)


def _sources(spec: PolicySpec, wanted: Sequence[str]) -> list[str]:
    """Return what to train: every source that the policy has of its artifact, and what is asked."""
    served = [source.name for source in spec.sources if isinstance(source, ArtifactSource)]
    if not served or spec.artifact is None:
        raise SpecError(
            f"policy {spec.name} has no source of kind artifact: there is nothing to refresh",
            "sources",
        )
    missing = [name for name in served if wanted and name not in wanted]
    if missing:
        raise SpecError(
            f"policy {spec.name} serves {missing[0]}, so an artifact without it is none for it:"
            " name it among the sources, or take it out of the spec",
            "sources",
        )
    return list(wanted or served)


def _read(state: PolicyState, options: RefreshOptions, progress: Progress) -> RewardedEvents:
    found = RewardedEvents(options.compared)
    for joined in state.decisions():
        found.add(joined)
        if found.decisions % 1000 == 0:
            progress("reading the log", found.decisions, 0)
    return found


def _activity(state: PolicyState) -> SpaceActivity | None:
    """Return what users did outside of decisions; None where nobody asks."""
    profile = state.spec.profile
    if state.activity is None or profile is msgspec.UNSET:
        return None
    return SpaceActivity.of(state.activity(), profile.types)


def _persons(state: PolicyState) -> dict[str, str]:
    """Return what the data set's users are logged under, by their keyed pseudonyms."""
    if state.data is None:
        return {}
    logged = state.persons(state.data.user_ids)
    return {pseudonym(state.salt, user_id): name for user_id, name in logged.items()}


def _slice(found: RewardedEvents, serving: Artifact | None, most: int) -> _Slice:
    """Return the decisions that artifacts are compared on."""
    size, newest = min(most, int(SHARE * found.decisions)), list(found.newest)
    end_ms = 1 + position_ms(newest[-1].position) if newest else 0
    if size < FEWEST:
        note = f"{found.decisions:,} decisions are too few to hold any back for a comparison"
        return _Slice([], 0, end_ms, [note])
    newest = newest[-size:]

    # What the artifact that serves was trained on says nothing of how well it does.
    seen_ms = _seen_until(serving)
    fresh = [joined for joined in newest if position_ms(joined.position) >= seen_ms]
    if len(fresh) < FEWEST:
        note = (
            f"{len(fresh):,} decisions were made since the artifact that serves was trained: too"
            " few to compare artifacts on"
        )
        return _Slice([], 0, end_ms, [note])
    cut_ms = position_ms(fresh[0].position)
    return _Slice(fresh, cut_ms, cut_ms, [])


def _seen_until(serving: Artifact | None) -> int:
    """Return up to when an artifact has seen the log; 0 if it was not trained on it."""
    said = "" if serving is None else serving.created_with.get(EVENTS_UNTIL, "")
    return int(said) if said.isdecimal() else 0


def _check_items(state: PolicyState, early: CodedEvents, lacking: int, most: float) -> list[str]:
    """Return what is to be said of items that the catalogue lacks; refuse too many."""
    if not lacking or not state.items.newest.limits:
        return []
    share = lacking / len(early.item_ids)
    said = (
        f"{lacking:,} of {len(early.item_ids):,} items with events are not in the catalogue: no"
        " source proposes them"
    )
    if share > most:
        raise LackingItemsError(
            f"{said}; {share:.0%} are more than {most:.0%}: is it another shop's data set? Put the"
            " items, or allow it with --most-lacking",
            "items",
        )
    return [said]


def _compare(
    state: PolicyState,
    options: RefreshOptions,
    artifact: Artifact,
    pasts: PastProfiles,
    early: CodedEvents,
    part: _Slice,
    progress: Progress,
) -> _Compared:
    """Compare the blend with a new artifact with that which serves."""
    out, spec, events = _Compared(), state.spec, pasts.events

    snapshot = _snapshot(state, part.cut_ms, out.notes)
    fresh = Contender.of("new artifact", CURRENT, Rescorer(artifact, spec, pasts), spec, snapshot)
    contenders, serving = [fresh], None
    if state.serving is not None:
        serving = Contender.of(
            "serving", CURRENT, Rescorer(state.serving, spec, pasts), spec, snapshot
        )
    else:
        out.notes.append("the artifact that serves cannot be had: there is nothing to compare with")
    if spec.kind != "blend":
        out.notes.append(f"a {spec.kind} is not compared on the log, only on users")

    decisions = [each for each in part.decisions if spec.kind == "blend" and comparable(each)]
    if serving is not None and decisions:
        step = max(1, len(decisions) // SAMPLED)
        out.shifts = scale_shifts(serving, fresh, decisions[::step])
    if any(shift.moved for shift in out.shifts) and options.may_teach and spec.learner.learns:
        progress("teaching the weights again", 0, 0)
        out.taught = teach_again(
            spec,
            _taught(state, part.cut_ms),
            fresh.rescorer,
            state.catalogue_of,
            salt=state.salt,
        )
    if out.taught is not None:
        contenders.append(
            Contender.of(
                "new artifact, taught again",
                TAUGHT_AGAIN,
                fresh.rescorer,
                spec,
                out.taught.snapshot,
            )
        )

    if decisions:
        comparison = LogComparison(spec, state.catalogue_of, serving, contenders)
        total = len(decisions)
        out.measures += comparison.compare(
            decisions, lambda done: progress("comparing decisions", done, total)
        )
    if part.cut_ms:
        users = held_out_users(events, part.cut_ms, seed=options.seed)
        total = len(users) * (len(contenders) + (serving is not None))
        out.measures += compare_on_users(
            spec,
            state.items,
            early,
            users,
            serving,
            contenders,
            progress=lambda done: progress("asking for users", done, total),
        )
    return out


def _snapshot(state: PolicyState, cut_ms: int, notes: list[str]) -> Snapshot:
    """Return the model to compare with: one that knows the decisions it is judged on looks good."""
    if not cut_ms or not state.spec.learner.learns:
        return state.snapshot
    stored = state.snapshot_before(cut_ms)
    if stored is not None:
        return stored

    made = teach_again(
        state.spec, _taught(state, cut_ms), None, state.catalogue_of, salt=state.salt
    )
    if made is None:
        return state.snapshot
    notes.append(
        "no model of before the decisions compared is stored: one was taught by"
        f" {made.model.learned:,} decisions of before"
    )
    return made.snapshot


def _taught(state: PolicyState, cut_ms: int) -> Iterator[JoinedDecision]:
    """Yield the newest decisions before those that are compared, MOST_TAUGHT at most."""
    count = sum(position_ms(joined.position) < cut_ms for joined in state.decisions())
    for number, joined in enumerate(state.decisions()):
        if number >= count:
            return
        if number >= count - MOST_TAUGHT:
            yield joined
