"""Weights are taken over where features have other names, alone and crossed, in whatever order."""

import numpy as np
import pytest

from bandits.errors import SnapshotError, SpecError
from bandits.types import ActionSet, Context, Interaction, Namespace
from bandits.vw import renaming
from bandits.vw.learner import VwLearner, load_vw
from bandits.vw.payloads import decode_model
from bandits.vw.renaming import NAMELESS, RenamedAction, WeightRenamer

BASE = "--cb_explore_adf --cb_type mtr --power_t 0 -l 0.05"
SPACES = {"user": "context", "where": "context", "kind": "features", "age": "features"}
"""The namespaces there, of the context and of actions, and where they are here."""
OF_CONTEXT = ("user", "where")


def named(space: str, seed: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, *space.encode()]).integers(0, 1 << 32, count, np.uint32)


class Decisions:
    """Three actions with features of four namespaces there, of two here; `x` is 1 everywhere."""

    def __init__(self, there: str, here: str, count: int = 12) -> None:
        self.there, self.here = there, here
        rng = np.random.default_rng(5)
        self.values = [
            {
                space: rng.normal(size=(2,) if space in OF_CONTEXT else (3, 2)).astype("f4")
                for space in SPACES
            }
            for _ in range(count)
        ]
        learner = VwLearner(there)
        for at, values in enumerate(self.values):
            context, actions = self.known_there(values)
            learner.learn([Interaction(f"e{at}", 0, context, actions, at % 3, 0.5, at / count, 0)])
        self.model = decode_model(learner.checkpoint()).model
        self.scorer = load_vw(learner.snapshot("1-0"))

    def known_there(self, values: dict[str, np.ndarray]) -> tuple[Context, ActionSet]:
        spaces = {name: Namespace(name, named(name, 0, 2), each) for name, each in values.items()}
        lone = Namespace("x", named("x", 0, 1), np.ones((3, 1), "f4"))
        own = [spaces[name] for name in SPACES if name not in OF_CONTEXT]
        return Context([spaces[each] for each in OF_CONTEXT]), ActionSet("abc", (*own, lone))

    def known_here(self, values: dict[str, np.ndarray]) -> tuple[Context, ActionSet]:
        def joined(spaces: list[str], name: str) -> Namespace:
            hashes = np.concatenate([named(each, 1, 2) for each in spaces])
            return Namespace(name, hashes, np.concatenate([values[s] for s in spaces], axis=-1))

        own = [each for each in SPACES if each not in OF_CONTEXT]
        context = Context([joined([*OF_CONTEXT], "context")])
        return context, ActionSet("abc", (joined(own, "features"),))

    def renamed(self, values: dict[str, np.ndarray]) -> list[RenamedAction]:
        actions = []
        for at in range(3):
            rows: list[tuple[int, int, int, int, float]] = []
            for space in (*(each for each in SPACES if each not in OF_CONTEXT), *OF_CONTEXT):
                each = values[space] if space in OF_CONTEXT else values[space][at]
                new = SPACES[space].encode()[0]
                rows += [
                    (space.encode()[0], int(old), new, int(now), float(value))
                    for old, now, value in zip(
                        named(space, 0, 2), named(space, 1, 2), each, strict=True
                    )
                ]
            rows.insert(4, (ord("x"), int(named("x", 0, 1)[0]), NAMELESS, 0, 1.0))
            letters, hashes, new_letters, new_hashes, numbers = zip(*rows, strict=True)
            actions.append(
                RenamedAction(
                    np.array(letters, np.uint8),
                    np.array(hashes, np.uint32),
                    np.array(new_letters, np.uint8),
                    np.array(new_hashes, np.uint32),
                    np.array(numbers),
                )
            )
        return actions


@pytest.mark.parametrize(
    ("there", "here"),
    [
        ("-q ::", "-q ::"),
        ("", "-q ::"),
        ("-q uk -q xw", "-q cf"),
        ("-q ku -q uu", "-q ::"),
        ("-q :: --noconstant -b 16", "-q :: -b 20"),
    ],
)
def test_a_score_is_what_it_was_under_other_names(monkeypatch, there, here):
    """Where all that is crossed there is crossed here; in whatever portions terms are counted."""
    decisions = Decisions(f"{BASE} {there}", f"{BASE} {here}")
    checkpoints = set()
    for at_once in (renaming.AT_ONCE, 1):
        monkeypatch.setattr(renaming, "AT_ONCE", at_once)
        renamer = WeightRenamer(decisions.there, decisions.model, decisions.here)
        for values in decisions.values:
            renamer.add(decisions.renamed(values))
        found = renamer.renamed()
        checkpoints.add(found.checkpoint)
    assert len(checkpoints) == 1
    assert (found.carried, found.decisions) == (found.weights, 12)
    assert found.apart < 1e-6

    learner = VwLearner(decisions.here, checkpoint=found.checkpoint, by_row=True)
    scorer = load_vw(learner.snapshot("1-0"))
    for values in decisions.values:
        before = decisions.scorer.scores(*decisions.known_there(values))
        assert scorer.scores(*decisions.known_here(values)) == pytest.approx(before, abs=1e-5)
        assert np.ptp(before) > 0

    # And goes on: what is rewarded is liked better than before.
    context, actions = decisions.known_here(decisions.values[0])
    before = scorer.scores(context, actions)
    learner.learn([Interaction("e", 0, context, actions, 1, 0.5, 5.0, 0)])
    after = load_vw(learner.snapshot("2-0")).scores(context, actions)
    assert after[1] > before[1] + 0.01


def test_what_is_not_met_or_not_crossed_here_stays_behind_and_is_told():
    decisions = Decisions(f"{BASE} -q ::", f"{BASE} -q cf")
    renamer = WeightRenamer(decisions.there, decisions.model, decisions.here)
    renamer.add(decisions.renamed(decisions.values[0]))
    renamer.add([])
    found = renamer.renamed()
    assert 0 < found.carried < found.weights
    assert found.decisions == 1
    assert found.apart > 1e-3


def test_what_is_no_sum_of_weights_and_pairs_is_refused():
    model = decode_model(VwLearner(BASE).checkpoint()).model
    for there, here in ((f"{BASE} --interactions abc", BASE), (BASE, f"{BASE} --cubic abc")):
        with pytest.raises(SpecError, match="no sums of weights"):
            WeightRenamer(there, model, here)
    with pytest.raises(SnapshotError, match="cannot load"):
        WeightRenamer(BASE, b"no model", BASE)
