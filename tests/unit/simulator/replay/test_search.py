"""Searching for a policy: what a space may say, rows to learn from, and how specs are drawn."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bandits.errors import ReplayError, SpecError
from policies.spec import ArtifactSource, PolicySpec
from serve_app.cli.main import app
from simulator.logs.row_ranges import count_rows, row_range
from simulator.logs.rows import LogBatch
from simulator.replay.search import search
from simulator.replay.search_space import load_space, specs_of

BASE = "{name: home, learner: {kind: ridge}, exploration: {kind: lints}}"


@dataclass
class Numbers:
    """A piece whose rows are numbered."""

    first: int
    rows: int
    skipped: int = 0

    def batches(self) -> Iterator[LogBatch]:
        for at in range(0, self.rows, 3):
            values = np.arange(
                self.first + at, self.first + min(at + 3, self.rows), dtype=np.float64
            )
            keys = values.astype(np.uint64)
            yield LogBatch(keys, values.astype(np.int64), values, values, list(keys), {"x": values})


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 25), (0, 0), (4, 5), (3, 17), (10, 25), (24, 25), (9, 10)]
)
def test_a_stretch_has_exactly_its_rows_however_the_log_is_cut(start, stop):
    for sizes in ([25], [10, 15], [1, 9, 0, 5, 10]):
        pieces = [Numbers(sum(sizes[:at]), size) for at, size in enumerate(sizes)]
        counts = [count_rows(piece) for piece in pieces]
        assert counts == sizes
        batches = [
            batch for piece in row_range(pieces, counts, start, stop) for batch in piece.batches()
        ]
        for column in ("keys", "times_ms", "reward", "propensity", "decisions"):
            found = [int(value) for batch in batches for value in getattr(batch, column)]
            assert found == list(range(start, stop)), column
        assert [int(value) for batch in batches for value in batch.columns["x"]] == list(
            range(start, stop)
        )


def space_of(tmp_path: Path, vary: str, more: str = "") -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(f"spec: {BASE}\nvary: {vary}\n{more}")
    return path


def test_specs_are_drawn_by_seed_from_the_space_the_unchanged_one_first(tmp_path):
    vary = (
        "{learner.l2: {loguniform: [0.1, 100]}, floor: {uniform: [0.1, 0.3]},"
        " use: {choice: [[item], [context]]}}"
    )
    space, base = load_space(space_of(tmp_path, vary, "trials: 40"))
    specs = specs_of(space, base, seed=1)
    assert specs == specs_of(space, base, seed=1) != specs_of(space, base, seed=2)
    assert [spec.name for spec in specs] == [f"home-{number}" for number in range(40)]
    assert (specs[0].learner, specs[0].floor) == (base.learner, base.floor)
    values = np.log10([spec.learner.l2 for spec in specs[1:]])
    assert -1 <= values.min() < -0.3 < 1.3 < values.max() <= 2
    assert all(0.1 <= spec.floor <= 0.3 for spec in specs[1:])
    assert {tuple(spec.use) for spec in specs[1:]} == {("item",), ("context",)}


def test_a_spec_is_tried_once(tmp_path):
    space, base = load_space(space_of(tmp_path, "{learner.l2: {choice: [1.0, 2.0]}}", "trials: 30"))
    assert [spec.learner.l2 for spec in specs_of(space, base, seed=0)] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("vary", "more", "said"),
    [
        ("{learner.l2: {gaussian: [0, 1]}}", "", "loguniform"),
        ("{learner.l2: {uniform: [2, 1]}}", "", "below"),
        ("{learner.l2: {loguniform: [0, 1]}}", "", "loguniform"),
        ("{learner.l2: {choice: []}}", "", "choice"),
        ("{learner.l2: {choice: [1], uniform: [1, 2]}}", "", "unknown field"),
        ("{}", "trials: 0", "trials"),
        ("{}", "tries: 3", "tries"),
    ],
)
def test_a_space_that_says_nothing_sensible_is_refused_by_field(tmp_path, vary, more, said):
    with pytest.raises(SpecError, match=said):
        load_space(space_of(tmp_path, vary, more))


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        ("{learner.nothing.l2: {choice: [1]}}", "no learner.nothing.l2"),
        ("{lerner: {choice: [1]}}", "lerner"),
    ],
)
def test_a_path_that_no_spec_has_is_refused(tmp_path, vary, said):
    space, base = load_space(space_of(tmp_path, vary))
    with pytest.raises(SpecError, match=said):
        specs_of(space, base, seed=0)


def test_what_cannot_be_searched_is_refused_before_anything_starts(tmp_path):
    space, base = load_space(space_of(tmp_path, "{learner.l2: {loguniform: [0.1, 100]}}"))
    with pytest.raises(ReplayError, match="too few"):
        search(space, base, [Numbers(0, 9)])
    mixture = PolicySpec("m", kind="mixture", sources=[ArtifactSource("cf")], artifact="x")
    with pytest.raises(ReplayError, match="mixture"):
        search(space, mixture, [Numbers(0, 900)])
    with pytest.raises(SpecError, match="nowhere"):
        load_space(tmp_path / "nowhere.yaml")
    (tmp_path / "log.csv").write_text("reward,propensity\n1,0.5\n")
    for more, said in (
        ([], "--search"),
        (["--search", str(tmp_path / "space.yaml"), "--policy", "uniform"], "its own"),
    ):
        done = CliRunner().invoke(
            app, ["replay", "--log", str(tmp_path / "log.csv"), "--format", "csv", *more]
        )
        assert isinstance(done.exception, ReplayError)
        assert said in done.exception.message
