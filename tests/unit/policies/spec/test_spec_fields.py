"""No field of a spec is accepted and without effect.

Every field of every struct of a spec is found by its type, and changed. A change is refused where
the spec is brought in, or some change of that field is seen in what the policy decides and learns.
A new field is covered by itself.
"""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec import inspect
from support.fakes import SALT, FakeLog, FakeSource

from bandits.errors import SpecError
from bandits.exploration import EpsilonGreedy
from bandits.log.records import RewardRecord, TickRecord
from bandits.vw.config import VwConfig
from policies.blend import load_policy
from policies.features import featurise
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue, Item
from policies.ranker import Ranker
from policies.requests import ActionRequest, RankRequest
from policies.spec import PolicySpec, decode_spec, spec_of
from policies.spec.checks import admit

SOURCES = [
    {"kind": "remote", "name": "cf", "url": "http://x"},
    {"kind": "remote", "name": "deep", "url": "http://y"},
]
COMMON = {"name": "home", "sources": SOURCES, "join": {"window_s": 5}}
BASES: dict[str, dict[str, Any]] = {
    "ridge": {
        **COMMON,
        "learner": {"kind": "ridge", "interactions": [["context", "item"]], "max_features": 12},
        "exploration": {"kind": "lints", "scale": [[3, 0.5], [20, 0.9]], "draws": 20},
        "holdout": {"fraction": 0.2, "policy": "cf"},
    },
    "as it arrives": {
        **COMMON,
        "learner": {"kind": "ridge", "action_bias": False},
        "exploration": {"kind": "squarecb"},
        "join": {"window_s": 3, "learn": "as_it_arrives", "late": "correct", "aggregation": "sum"},
    },
    "vw": {
        **COMMON,
        "learner": {"kind": "vw", "args": "--cb_explore_adf -b 12 -q cs"},
        "exploration": {"kind": "epsilon_greedy"},
    },
    "vw's own": {
        **COMMON,
        "learner": {"kind": "vw", "args": "--cb_explore_adf -b 12 --bag 3 -q cf"},
        "exploration": {"kind": "vw"},
    },
    "mixture": {**COMMON, "kind": "mixture", "exploration": {"kind": "softmax"}, "floor": 0.1},
    "explicit actions": {"name": "home", "join": {"window_s": 5}},
}
ELSEWHERE = {  # what is seen by the processes that a spec starts, and by the services that it names
    "artifact": "tests/unit/policies/artifacts/test_source_artifact.py",
    "partitions": "tests/unit/policies/fold/test_partition.py",
    "prior": "tests/unit/policies/fold/test_prior_in_log.py",
    "boost": "tests/unit/policies/rules/test_boosts.py",
    "boost_cap": "tests/unit/policies/rules/test_boosts.py",
    "quota": "tests/unit/policies/rules/quotas/test_quota.py",
    "placements": "tests/unit/policies/rules/test_placements.py",
    "space": "tests/integration/test_spaces.py",
    "repeat": "tests/unit/policies/profiles/test_known_user.py",
    "signals": "tests/unit/policies/profiles/test_signals.py",
    "on_change": "tests/unit/policies/fold/test_relearned.py",
    "protected": "tests/unit/policies/test_protected.py",
    "shadow": "tests/unit/policies/shadows/test_opening.py",
    "context_private": "tests/unit/policies/test_private_context.py",
    "join.page_reward": "tests/unit/bandits/log/test_page_reward.py",
    "learner.examination": "tests/unit/bandits/ridge/test_examination.py",
    "learner.slot_biases": "tests/unit/bandits/ridge/test_slot_biases.py",
    "learner.standbys": "tests/integration/test_learner.py",
    "mode": "tests/unit/policies/decisions/test_apprentice.py",
    "learn": "tests/unit/policies/decisions/test_apprentice.py",
    "baseline": "tests/unit/policies/decisions/test_apprentice.py",
    "sources[0].url": "tests/unit/policies/sources/test_sources.py",
    "sources[0].timeout_ms": "tests/unit/policies/sources/test_sources.py",
    "sources[0].retries": "tests/unit/policies/sources/test_sources.py",
    "sources[0].send_user_id": "tests/unit/policies/sources/test_sources.py",
    "sources[0].send_context": "tests/unit/policies/sources/test_sources.py",
}
TEXTS = {
    "args": ["--cb_explore_adf -b 12 -q ci -l 0.1", "--cb_explore_adf -b 12 --bag 4"],
    "field": ["hour", "device"],
    "policy": ["uniform", "deep"],
    "name": ["other", "cf2"],
    "half_life": ["20s"],
}
ROUNDS = 32
COMES = np.random.default_rng(6).random((ROUNDS, 3)) < 0.5
IDS = tuple(f"i{k}" for k in range(9))
ITEMS = Catalogue(
    [Item(name, {"size": float(k), "kind": f"k{k % 3}"}) for k, name in enumerate(IDS)]
)


SIMPLE: dict[type[inspect.Type], Callable[[Any], list[Any]]] = {
    inspect.BoolType: lambda value: [other for other in (True, False) if other != value],
    inspect.FloatType: lambda value: [value * 4 + 0.01, value / 2, 0.9],
    inspect.IntType: lambda _: [2, 1, 7],
    inspect.NoneType: lambda value: [] if value is None else [None],
}


def changes(kind: inspect.Type, value: Any, field: str) -> Iterator[Any]:
    """Other values for a field."""
    for each in kind.types if isinstance(kind, inspect.UnionType) else (kind,):
        if isinstance(each, inspect.FloatType) and isinstance(value, list):
            yield 0.7  # a number in place of the list
        elif type(each) in SIMPLE:
            yield from SIMPLE[type(each)](value)
        elif isinstance(each, inspect.LiteralType):
            yield from (other for other in each.values if other != value)
        elif isinstance(each, inspect.StrType):
            yield from (other for other in TEXTS.get(field, ["x"]) if other != value)
        elif isinstance(each, inspect.ListType):
            yield from ([kept for kept in value if kept != left] for left in value)
            yield from (
                [*value, more] for more in (["item", "scores"], "item", ["context", "scores"])
            )
        elif isinstance(each, inspect.StructType):
            yield from others(each, value)


def others(struct: inspect.StructType, value: Any) -> list[Any]:
    if value is None:
        return [{"fraction": 0.5}]
    return (
        [{struct.tag_field: struct.tag}]
        if struct.tag and value[struct.tag_field] != struct.tag
        else []
    )


def plain(value: Any) -> Any:
    """A spec with all of its fields, also those that are left out while they have their default."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    if not isinstance(value, msgspec.Struct):
        return list(value) if isinstance(value, tuple) else value
    config = value.__struct_config__
    tag = {config.tag_field: config.tag} if config.tag else {}
    given = {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    return {**tag, **{name: each for name, each in given.items() if each is not msgspec.UNSET}}


def brought_in(raw: Any) -> PolicySpec | None:
    try:
        return spec_of(raw)
    except SpecError as error:
        return None if error.target else spec_of(raw)


def fields(kind: inspect.Type, value: Any, path: str) -> Iterator[tuple[str, inspect.Type]]:
    """Every field inside a value of a spec, with its path."""
    kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    for each in kinds:
        if isinstance(each, inspect.StructType) and isinstance(value, dict):
            if each.tag and value[each.tag_field] != each.tag:
                continue
            for field in each.fields:
                at = f"{path}.{field.encode_name}".removeprefix(".")
                if not (
                    isinstance(field.type, inspect.StructType) and not field.type.tag
                ):  # else its fields stand for it
                    yield at, field.type
                yield from fields(field.type, value.get(field.encode_name), at)
        elif isinstance(each, inspect.ListType) and first_is_struct(value):
            yield from fields(each.item_type, value[0], f"{path}[0]")


def first_is_struct(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def put(raw: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    step, rest = path[0], path[1:]
    if step.isdigit():
        return [put(each, rest, value) if at == int(step) else each for at, each in enumerate(raw)]
    return {**raw, step: put(raw.get(step), rest, value)}


def steps(path: str) -> list[str]:
    return path.replace("[", ".").replace("]", "").split(".")


def at(raw: Any, path: list[str]) -> Any:
    for step in path:
        raw = raw[int(step)] if step.isdigit() else raw.get(step)
    return raw


def played(spec: PolicySpec) -> bytes:
    """What a policy decides and learns in a small log, with rewards in time, twice, and late."""
    rng = np.random.default_rng(5)
    sources = [
        FakeSource(each.name, dict(zip(IDS, rng.normal(size=9).tolist(), strict=True)))
        for each in spec.sources
    ]
    ranker, log = Ranker(spec, sources, salt=SALT), FakeLog(spec)
    ranker.offer(ITEMS)
    log.blobs[ITEMS.digest] = ITEMS.encoded
    fold, applied = Fold(log.blobs.__getitem__, salt=SALT), 0
    seen: list[bytes] = []
    pending: list[tuple[int, RewardRecord]] = []

    def catch_up(now: int) -> None:
        nonlocal applied, pending
        for due, reward in sorted(
            (each for each in pending if each[0] <= now), key=lambda each: each[0]
        ):
            log.append(reward, at=due)
        pending = [each for each in pending if each[0] > now]
        fold.apply(log.entries[applied:])
        applied = len(log.entries)

    with asyncio.Runner() as runner:
        for number in range(ROUNDS):
            now = 1000 * (10 + number)
            catch_up(now)
            if number % 8 == 0:
                ranker.serve(f"s{number}", fold.snapshot())
            actions = None if sources else [ActionRequest(name) for name in IDS]
            context = {"hour": float(number % 5), "device": f"d{number % 2}"}
            request = RankRequest(
                f"e{number}", user_id=f"u{number % 11}", context=context, actions=actions
            )
            record = ranker.decide(request, runner.run(ranker.pool(request)))
            log.append(record, at=now)
            seen += [record.pmf, bytes([record.holdout, *record.chosen])]
            for place, (at_ms, value) in enumerate(((1100, 1.0), (2900, 0.5), (5500, 2.0))):
                if COMES[number, place]:
                    pending.append((now + at_ms, RewardRecord(f"e{number}", value, f"{at_ms}")))
    log.append(TickRecord(), at=1000 * (ROUNDS + 60))
    catch_up(1000 * (ROUNDS + 60))
    assert fold.learner is not None
    return b"".join([*seen, fold.snapshot().payload, fold.learner.checkpoint()])


def cases() -> list[Any]:
    found = []
    for base, raw in BASES.items():
        whole = plain(msgspec.convert(raw, PolicySpec))
        found += [
            pytest.param(whole, path, kind, id=f"{base}: {path}")
            for path, kind in fields(TYPE, whole, "")
        ]
    return found


TYPE = inspect.type_info(PolicySpec)


@pytest.fixture(scope="module")
def remembered() -> dict[str, bytes]:
    return {}


@pytest.mark.parametrize(("raw", "path", "kind"), cases())
def test_a_field_that_is_accepted_has_an_effect(
    raw: dict[str, Any], path: str, kind: inspect.Type, remembered: dict[str, bytes]
) -> None:
    if path in ELSEWHERE:
        return
    before = remembered.setdefault(
        repr(raw), played(spec_of(raw)) if repr(raw) not in remembered else b""
    )
    tried = accepted = 0
    for value in changes(kind, at(raw, steps(path)), path.rpartition(".")[2]):
        tried += 1
        spec = brought_in(put(raw, steps(path), value))
        if spec is None:
            continue
        accepted += 1
        if played(spec) != before:
            return
    assert tried, "say in changes() what else such a field can be"
    assert not accepted, "accepted, and nothing that was tried changes anything"


def vw(args: str) -> dict[str, Any]:
    return {"kind": "vw", "args": f"--cb_explore_adf {args}"}


def crossing(*pairs: list[str]) -> dict[str, Any]:
    return {"kind": "ridge", "interactions": list(pairs)}


def test_where_else_a_field_is_tested_there_is_a_file() -> None:
    root = Path(__file__).parents[4]
    assert [each for each in ELSEWHERE.values() if not (root / each).is_file()] == []


def test_every_field_of_every_struct_is_reached() -> None:
    """Or it is said above where else."""
    reached = {case.values[1] for case in cases()}
    assert {
        "floor",
        "within.temperature",
        "learner.max_features",
        "holdout.field",
        "join.late",
    } <= reached
    assert reached >= ELSEWHERE.keys()


@pytest.mark.parametrize(
    "args", ["--cb_type dr -q cf", "--bag 3", "--cover 3 --psi 0.01", "--rnd 3", "--l1 1e-4"]
)
@pytest.mark.parametrize("kind", ["epsilon_greedy", "softmax", "squarecb", "greedy"])
def test_an_exploration_that_could_not_act_on_vws_scores_is_refused(args: str, kind: str) -> None:
    raw = {"name": "p", "learner": vw(args), "exploration": {"kind": kind}}
    with pytest.raises(SpecError, match=args.split(maxsplit=1)[0]) as caught:
        spec_of(raw)
    assert caught.value.target == "exploration.kind"
    assert spec_of({**raw, "exploration": {"kind": "vw"}}).learner


@pytest.mark.parametrize(
    "args", ["--epsilon 0.2", "--softmax --lambda 3", "--squarecb --gamma_scale 20", "--first 9"]
)
def test_vws_exploration_is_not_asked_for_in_vain(args: str) -> None:
    with pytest.raises(SpecError, match=args.split(maxsplit=1)[0]):
        spec_of({"name": "p", "learner": vw(args), "exploration": {"kind": "greedy"}})


@pytest.mark.parametrize(
    ("more", "target"),
    [
        ({"limit": 7}, "limit"),
        ({"within": {"kind": "greedy"}}, "within"),
        ({"use": ["item", "item"]}, "use"),
        ({"use": ["context"], "learner": {"kind": "ridge", "action_bias": False}}, "use"),
        (
            {"use": ["context"], "learner": {"kind": "vw"}, "exploration": {"kind": "softmax"}},
            "use",
        ),
        ({"kind": "mixture", "sources": SOURCES, "use": ["context", "scores"]}, "use"),
        ({"learner": {"kind": "ridge", "action_bias": False, "bias_l2": 3}}, "learner.bias_l2"),
        ({"learner": crossing(["item", "context"], ["context", "item"])}, "learner.interactions"),
        ({"learner": crossing(["item", "context"]), "use": ["item"]}, "learner.interactions"),
        (
            {"kind": "mixture", "sources": SOURCES, "learner": crossing(["context", "features"])},
            "learner.interactions",
        ),
        ({"learner": vw("-q cx"), "exploration": {"kind": "greedy"}}, "learner.args"),
        (
            {"learner": vw("-q cf"), "exploration": {"kind": "vw"}, "use": ["context", "item"]},
            "learner.args",
        ),
        (
            {
                "kind": "rl",
                "learner": {"kind": "rl", "features": "0" * 16},
                "exploration": {"kind": "greedy"},
                "join": {"late": "correct"},
            },
            "join.late",
        ),
        ({"profile": {"types": {"view": 1, "shown": 1}}}, "profile.types"),
    ],
)
def test_what_would_do_nothing_is_refused_by_field(more: dict[str, Any], target: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec_of({"name": "p", **more})
    assert caught.value.target == target


def test_a_log_of_an_earlier_build_keeps_its_spec() -> None:
    """What is refused where a spec is brought in is folded and served as it was."""
    learner = VwConfig("--cb_explore_adf --cb_type dr -b 10 -q cf")
    spec = PolicySpec("p", learner=learner, exploration=EpsilonGreedy(0.6), limit=7, floor=0.0)
    with pytest.raises(SpecError):
        admit(spec)
    assert decode_spec(spec.encoded) == spec
    fold = FakeLog(spec).fold()
    policy = load_policy(spec, fold.snapshot())
    pmf = policy.pmf(*featurise(spec, Catalogue(), {}, IDS, None, {}))
    assert pmf == pytest.approx(np.full(9, 1 / 9))
