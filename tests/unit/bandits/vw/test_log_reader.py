"""A line that VW cannot read leaves nothing behind: in the model, in VW, in any reader."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.strategies import MANY
from vowpal_wabbit_next import TextFormatParser, Workspace, run_cli_driver

from bandits.errors import BadRowError, InvalidPmfError
from bandits.exploration import EpsilonGreedy
from bandits.types import ActionSet, Context
from bandits.vw.config import VwConfig
from bandits.vw.learner import VwLearner, VwModel, load_vw
from bandits.vw.log_reader import LogFormat, VwLabel, VwLogReader
from policies.spec import PolicySpec
from simulator.learners.progressive import progressive, vw_progressive
from simulator.learners.trained import train_on_log
from simulator.logs.dsjson import dsjson_pieces
from simulator.logs.vw_text import text_pieces

ARGS = "--cb_explore_adf -b 12 -q ui"
_RNG = np.random.default_rng(20)


def example(rng: np.random.Generator) -> str:
    liked, chosen = rng.choice(["red", "blue", "green"]), int(rng.integers(3))
    cost = -int(rng.random() < (0.8 if ["red", "blue", "green"][chosen] == liked else 0.2))
    lines = [
        f"|item {colour} price:{rng.random():.3f} |extra x:{rng.random():.2f}"
        for colour in ("red", "blue", "green")
    ]
    lines[chosen] = f"0:{cost}:0.3333 {lines[chosen]}"
    return "\n".join([f"shared |user likes={liked} hour:{rng.integers(24)}", *lines, "", ""])


GOOD = [example(_RNG) for _ in range(120)]
# What VW ends at with an error, each in a feature's place of some line
JUNK = [
    "price:1,5",
    "x:1:2",
    "x:nan",
    "x:-NaN",
    "x:1_000",
    "x:1.5.2",
    "x:1e5,",
    "x:12px",
    "x:1/2",
    "x:infected",
]
HEADS = ["|item:1,5 red", "|item:red x", "|item:nan red", "|: red", "|:2 red"]


def json_of(text: str) -> str:
    """The same example in dsjson, near enough: it learns and can be broken."""
    chosen = next(at for at, line in enumerate(text.splitlines()[1:4]) if line.startswith("0:"))
    cost = text.splitlines()[1 + chosen].split(":")[1]
    actions = ", ".join(
        f'{{"item": {{"{colour}": 1, "price": 0.5}}}}' for colour in ("red", "blue", "green")
    )
    return (
        f'{{"_label_cost": {cost}, "_label_probability": 0.3333, "_label_Action": {chosen + 1},'
        f' "_labelIndex": {chosen}, "a": [1, 2, 3], "p": [0.3333, 0.3333, 0.3334],'
        f' "c": {{"user": {{"{text.split()[2]}": 1}}, "_multi": [{actions}]}}}}\n'
    )


GOOD_JSON = [json_of(each) for each in GOOD]
JUNK_JSON = [
    ('"price": 0.5', '"price": [1, [2]]'),
    ('"price": 0.5', '"price": 1e999'),
    ('"price": 0.5', '"_tag": 5'),
    ('"price": 0.5', '"_text": 5'),
    ('"price": 0.5', '"price": {"a": [{"b": [[1]]}]}'),
    ('"_multi": [{', '"_multi": [5, {'),
    ('"price": 0.5}}, {', '"price": 0.5}}, 7, {'),
    ("}}]}}", "}}]}"),
]


def written(path: Path, examples: Sequence[str]) -> Path:
    path.write_text("".join(examples))
    return path


def loss(path: Path, log_format: LogFormat = "text", *, skipped: int = 0) -> float:
    found = vw_progressive(path, ARGS, log_format, skip_bad=True)
    assert found.skipped == skipped
    return found.average_loss


def broken(text: str, line: int, junk: str) -> str:
    """An example with junk in one of its lines, between its features."""
    lines = text.split("\n")
    lines[line] = f"{lines[line]} {junk} last"
    return "\n".join(lines)


def headless(text: str, line: int, head: str) -> str:
    lines = text.split("\n")
    lines[line] = (
        lines[line]
        .replace("|item red", head)
        .replace("|item blue", head)
        .replace("|item green", head)
    )
    return "\n".join(lines)


@pytest.mark.parametrize("line", [0, 3])
@pytest.mark.parametrize("junk", JUNK)
def test_bad_rows_change_nothing_for_the_good_ones(tmp_path: Path, junk: str, line: int) -> None:
    bad = broken(GOOD[5], line, junk)
    mixed = written(tmp_path / "mixed", [*GOOD[:60], bad, *GOOD[60:80], bad, bad, *GOOD[80:]])
    good = written(tmp_path / "good", GOOD)
    expected = loss(good)
    assert loss(mixed, skipped=3) == expected
    assert loss(good) == expected  # the process goes on: other workspaces read as before
    with pytest.raises(BadRowError, match=r"mixed, line \d+"):
        vw_progressive(mixed, ARGS, "text")


@pytest.mark.parametrize("head", HEADS)
def test_a_namespace_that_vw_cannot_read_changes_nothing_either(tmp_path: Path, head: str) -> None:
    bad = headless(GOOD[5], 2, head)
    assert bad != GOOD[5]
    mixed, good = (
        written(tmp_path / "mixed", [*GOOD[:60], bad, *GOOD[60:]]),
        written(tmp_path / "good", GOOD),
    )
    expected = loss(good)
    assert loss(mixed, skipped=1) == expected
    assert loss(good) == expected


@pytest.mark.parametrize(("old", "new"), JUNK_JSON)
def test_nor_does_a_line_of_dsjson(tmp_path: Path, old: str, new: str) -> None:
    bad = GOOD_JSON[5].replace(old, new, 1)
    assert bad != GOOD_JSON[5]
    mixed = written(
        tmp_path / "mixed", [*GOOD_JSON[:60], bad, *GOOD_JSON[60:80], bad, *GOOD_JSON[80:]]
    )
    good = written(tmp_path / "good", GOOD_JSON)
    expected = loss(good, "dsjson")
    assert loss(mixed, "dsjson", skipped=2) == expected
    assert loss(good, "dsjson") == expected


def test_the_loss_of_the_good_rows_is_that_of_vws_command_line(tmp_path: Path) -> None:
    """So that what is compared above is right, too."""
    mixed = written(tmp_path / "mixed", [*GOOD[:7], broken(GOOD[5], 2, "price:1,5"), *GOOD[7:]])
    said = run_cli_driver(
        [*ARGS.split(), "-d", str(written(tmp_path / "good", GOOD))], onethread=True
    )[0]
    expected = float(said.partition("average loss = ")[2].split()[0])
    assert loss(mixed, skipped=1) == pytest.approx(expected, abs=1e-5)


ALPHABET = st.lists(
    st.sampled_from([*"a1.0eE+-:| ,'_x\\#", "\t", "nan", "NaN", "inf", "1e", "0x", "é", "9"]),
    min_size=1,
    max_size=9,
)


@settings(max_examples=MANY // 4, deadline=None, derandomize=True)
@given(ALPHABET, st.integers(0, 3), st.booleans())
def test_whatever_stands_in_a_line_later_ones_are_read_as_they_are(
    pieces: list[str], line: int, head: bool
) -> None:
    """The oracle is VW's parser before the line: had it stopped, the probe lost features."""
    junk = "".join(pieces)
    bad = headless(GOOD[5], line, f"|{junk}") if head else broken(GOOD[5], line, junk)
    reader, fresh = VwLogReader(ARGS, "text"), VwLogReader(ARGS, "text")
    try:
        reader.probability([each.encode() for each in bad.rstrip("\n").split("\n")], VwLabel(None))
    except BadRowError:
        pass
    else:
        assume(False)  # it was read
    probe = [
        each.encode()
        for each in GOOD[0].replace("0:0:0.3333 ", "").replace("0:-1:0.3333 ", "").split("\n")[:4]
    ]
    for _ in range(6):  # more than the lines of one example, so that the whole pool is asked
        assert reader.pmf(probe, VwLabel(None)).tolist() == fresh.pmf(probe, VwLabel(None)).tolist()
    parser = TextFormatParser(Workspace(["--cb_explore_adf", "--quiet"]))
    held = [parser.parse_line("|a x |b y") for _ in range(12)]
    assert {tuple(each.feat_group_indices) for each in held} == {(ord("a"), ord("b"))}


def test_what_is_read_well_is_not_refused(tmp_path: Path) -> None:
    """Texts, numbers of every form, weights, anonymous features: as VW reads them."""
    fine = [
        "x:red",
        "x:e5",
        "x:0x1F",
        "x:1e+5",
        "x:.5",
        "x:5.",
        "x:-1E-3",
        "x:007",
        "a:-b",
        "a=1,5",
        "x|item:2 y",
        ":3",
    ]
    for each in fine:
        path = written(tmp_path / "log", [broken(text, 2, each) for text in GOOD[:20]])
        said = run_cli_driver([*ARGS.split(), "-d", str(path)], onethread=True)[0]
        expected = float(said.partition("average loss = ")[2].split()[0])
        assert loss(path) == pytest.approx(expected, abs=1e-5), each


SPEC = PolicySpec(
    "p",
    learner=VwConfig("--cb_explore_adf -q cf"),
    exploration=EpsilonGreedy(),
    use=["context", "features"],
)


@pytest.mark.parametrize("junk", ["price:1,5", "x:1:2", "x:12px"])
def test_policies_of_this_project_learn_the_same_without_the_bad_rows(
    tmp_path: Path, junk: str
) -> None:
    """In a replay and in training; both read through rows, not through VW."""
    bad = broken(GOOD[5], 2, junk)
    mixed = written(tmp_path / "mixed", [*GOOD[:60], bad, *GOOD[60:]])
    good = written(tmp_path / "good", GOOD)
    (expected,) = [progressive(SPEC, text_pieces(good))]
    found = progressive(SPEC, text_pieces(mixed, skip_bad=True))
    assert (found.ips, found.skipped, expected.skipped) == (expected.ips, 1, 0)
    taught = train_on_log(SPEC, text_pieces(mixed, skip_bad=True))
    assert taught.checkpoint == train_on_log(SPEC, text_pieces(good)).checkpoint
    broken_json = GOOD_JSON[5].replace(*JUNK_JSON[5], 1)
    lines = written(tmp_path / "json", [*GOOD_JSON[:60], broken_json, *GOOD_JSON[60:]])
    clean = written(tmp_path / "clean", GOOD_JSON)
    assert (
        train_on_log(SPEC, dsjson_pieces(lines, skip_bad=True)).checkpoint
        == train_on_log(SPEC, dsjson_pieces(clean)).checkpoint
    )


def test_a_decision_that_vw_cannot_answer_leaves_its_model_as_it_was() -> None:
    learner = VwLearner("--cb_explore_adf --bag 3 -b 10")
    model = load_vw(learner.snapshot("0-0"))
    assert isinstance(model, VwModel)
    actions = ActionSet(("a", "b"))
    before = model.pmf(Context(), actions).tobytes()
    for _ in range(3):
        with pytest.raises(InvalidPmfError):
            model.pmf(Context(), ActionSet(()))
        assert model.pmf(Context(), actions).tobytes() == before
