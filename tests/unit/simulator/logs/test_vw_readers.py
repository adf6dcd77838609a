"""VW reads a log, and so do we: the same rows, features and loss for generated lines of every kind.

The oracle is VW: its command line for what is read and what it costs, its parsers for the features.
"""

import json
import math
import random
import re
from collections import Counter

import mmh3
import pytest
from support.strategies import MANY
from typer.testing import CliRunner
from vowpal_wabbit_next import DSJsonFormatParser, TextFormatParser, Workspace, run_cli_driver

from bandits.errors import BadRowError
from bandits.vw.log_reader import _check_namespaces
from serve_app.cli.main import app
from simulator.learners.progressive import NO_ACTIONS, vw_progressive
from simulator.logs.dsjson import NO_LABEL, SKIP_LEARN, dsjson_pieces
from simulator.logs.left_out import MARKER
from simulator.logs.vw_text import text_pieces

SEEDS = range(40 if MANY >= 1000 else 3)
LINES = 250
ARGS = "--cb_explore_adf --epsilon 0.2"
MASK = (1 << 18) - 1
SPACES = ["u", "item", "icon", "x"]
NAMES = [*SPACES, "y", "é", "B2"]
TEXTS = ["red", "blue", "é", "a=b", ""]
VW = Workspace([*ARGS.split(), "--quiet"])


class Repeated(dict):
    """A JSON object with keys that repeat."""

    def __init__(self, pairs):
        super().__init__([("", "")])  # json asks whether it is empty
        self.pairs = pairs

    def items(self):
        return self.pairs


def a_value(rng, depth):
    simple = [rng.choice([0, 1, -3, 0.5, 2.25, 1e6]), rng.choice(TEXTS), rng.random() < 0.5, None]
    if depth == 3 or rng.random() < 0.5:
        return rng.choice(simple)
    objects = [an_object(rng, depth + 1) for _ in range(rng.randrange(1, 4))]
    return rng.choice(
        [[rng.choice([1, 0.5, -2]) for _ in range(rng.randrange(4))], objects, objects[0]]
    )


def an_object(rng, depth=0):
    """Names repeat, within an object and among objects."""
    values = [a_value(rng, depth) for _ in range(rng.randrange(5))]
    pairs = [
        (rng.choice(SPACES if isinstance(each, list | dict) else NAMES), each) for each in values
    ]
    if rng.random() < 0.2:
        pairs.append(("_hidden", rng.choice([1, "x", {"x": [1]}])))
    if rng.random() < 0.1:
        pairs.append(("_text", "red  blue red\tx"))
    return Repeated(pairs)


def a_case(rng, key):
    """Of a label's key that VW reads without regard to case."""
    at = 7 if key[6] == "_" else 6
    return key[:at] + rng.choice([str.lower, str.upper, str.title, str])(key[at:])


def a_decision(rng):
    """The members of a line that VW reads as a decision with a label."""
    count = rng.randrange(1, 5)
    actions = [an_object(rng) for _ in range(count)]
    for action in actions:
        if rng.random() < 0.2:
            action.pairs.insert(0, (rng.choice(["_tag", "_Tag", "_TAG"]), "t"))
    context = an_object(rng)
    multi = [*([None] if rng.random() < 0.1 else []), *actions]
    holder = context.pairs
    if rng.random() < 0.1:
        inner = Repeated([])
        holder.append(("nested", inner))
        holder = inner.pairs
    holder.insert(rng.randrange(len(holder) + 1), ("_multi", multi))
    chosen = rng.randrange(count)
    cost, probability = rng.choice([-1, 0, 1.5, -0.25]), rng.choice([0.1, 0.5, 1, 0.25])
    label = {"_label_cost": cost, "_label_probability": probability, "_labelIndex": chosen}
    if rng.random() < 0.7:
        label["_label_Action"] = rng.choice([int, float])(chosen + 1)
    label = [(a_case(rng, key), value) for key, value in label.items()]
    rng.shuffle(label)
    inside = rng.random() < 0.1
    if inside:
        context.pairs[:0] = label
    others = [chosen + 1, *(k + 1 for k in range(count) if k != chosen)]
    given = rng.choice([others, [float(k) for k in others], chosen + 1, [None, *others]])
    line = [("a", given), *([] if inside else label)]
    line += rng.sample(
        [
            ("EventId", rng.choice(["e", None])),
            ("Timestamp", rng.choice(["2020-01-01T00:00:00Z", "", None])),
            ("_outcomes", None),
            ("_skipLearn", rng.choice([False, None])),
            ("pdrop", rng.choice([0.5, 0, None])),
            (rng.choice(["p", "_p"]), rng.choice([[0.5] * count, None, 0.5, ["NaN"] * count])),
            ("o", [{"v": 1, "_labelled": 3}]),
            ("_original_label_cost", 1),
        ],
        rng.randrange(6),
    )
    rng.shuffle(line)
    return [*line, ("c", context)]


def a_line(rng):
    """A line of any kind, and what becomes of it: a row, or why it is none."""
    text = json.dumps(Repeated(a_decision(rng)), ensure_ascii=False)
    marks = ["[CHECKPOINT 2024-05-01T00:00:00Z]", "# x", f" {text}", "null", '"{"', "]"]
    kinds = {
        "row": text,
        MARKER: rng.choice(marks),
        SKIP_LEARN: '{"_skipLearn": true, ' + re.sub('"_skipLearn": (false|null), ', "", text[1:]),
        NO_LABEL: rng.choice(
            [
                json.dumps({"a": [1], "c": {"x": 1, "_multi": [{"x": 1}, {"y": 2}]}}),
                re.sub(r'("_label_cost": )[-0-9.]+', r"\1null", text, flags=re.IGNORECASE, count=1),
            ]
        ),
        NO_ACTIONS: json.dumps({"EventId": "e", "RewardValue": 1.0}),
        "bad rows": rng.choice([text[:-1], text.replace("{", '{"_label_x": 1, ', 1), text + " x"]),
    }
    kind = rng.choice(["row"] * 8 + list(kinds))
    return kinds[kind], kind


def rows_of(pieces):
    return [row for piece in pieces for batch in piece.batches() for row in batch.decisions]


def driver(path, words=()):
    """The average loss and the number of examples that VW's command line prints."""
    said = run_cli_driver([*ARGS.split(), "-d", str(path), *words], onethread=True)[0]
    loss, count = (
        re.search(r"average loss = (\S+)", said)[1],
        re.search(r"number of examples = (\S+)", said)[1],
    )
    return math.nan if loss == "n.a." else float(loss), int(count)


@pytest.mark.parametrize("seed", SEEDS)
def test_of_any_dsjson_the_same_lines_are_read_as_vw_reads_and_at_the_same_loss(tmp_path, seed):
    rng = random.Random(seed)
    lines, kinds = zip(*(a_line(rng) for _ in range(LINES)), strict=True)
    path = tmp_path / "log.json"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    loss, examples = driver(path, ["--dsjson"])
    found = vw_progressive(path, ARGS, "dsjson", skip_bad=True)
    assert found.average_loss == pytest.approx(loss, abs=2e-5)
    assert found.examples == examples
    expected = Counter(kinds)
    assert found.labelled == expected.pop("row")
    assert found.examples - found.labelled == expected.pop(NO_LABEL)
    assert found.left_out.counts == expected
    (piece,) = dsjson_pieces(path, skip_bad=True)
    assert len(rows_of([piece])) == found.labelled
    assert sum(piece.left_out.counts.values()) == LINES - found.labelled
    assert piece.skipped == found.skipped


def vw_hash(text, seed):
    """As VW hashes a name: digits are a number."""
    return (
        int(text) + seed
        if text.isascii() and text.isdigit()
        else mmh3.hash(text.encode(), seed, signed=False)
    )


def as_vw(features, *, chained):
    """By index, the sum of the values that VW has of these features.

    ``chained``: how it hashes a text.
    """
    sums = Counter()
    for full, value in features.items():
        name, equals, text = full.partition("=")
        *spaces, key = name.split(".")
        seed = vw_hash(spaces[-1], 0) if spaces else 0
        texts = [text] if equals else [value] if isinstance(value, str) else value
        if isinstance(texts, list):
            for each in texts:
                index = vw_hash(each, vw_hash(key, seed)) if chained else vw_hash(key + each, seed)
                sums[index & MASK] += float(value) if equals else 1.0
        else:
            sums[vw_hash(key, seed) & MASK] += float(value)
    return {index: value for index, value in sums.items() if value}


def of_vw(example):
    """The same of an example that VW has parsed."""
    sums = Counter()
    for letter in example.feat_group_indices:
        for index, value in zip(example[letter].indices, example[letter].values, strict=True):
            sums[int(index) & MASK] += float(value)
    return {index: value for index, value in sums.items() if value}


@pytest.mark.parametrize("seed", SEEDS)
def test_no_feature_of_dsjson_is_lost_however_often_its_name_is_met(tmp_path, seed):
    rng = random.Random(seed)
    lines = [json.dumps(Repeated(a_decision(rng)), ensure_ascii=False) for _ in range(LINES)]
    (tmp_path / "log").write_text("\n".join(lines), encoding="utf-8")
    parser = DSJsonFormatParser(VW)
    several = 0
    for line, row in zip(lines, rows_of(dsjson_pieces(tmp_path / "log")), strict=True):
        examples = [of_vw(each) for each in parser.parse_json(line)]
        found = [as_vw(each, chained=False) for each in (row.context, *row.features)]
        assert found == [pytest.approx(each) for each in examples]
        several += any(
            isinstance(each, list)
            for features in (row.context, *row.features)
            for each in features.values()
        )
    assert several > LINES / 20  # the generator makes what this is about


def a_number(rng):
    return rng.choice(["1", "-2.5", ".5", "+3", "1e2", "2.", "0", "0x1f", "5e"])


def a_namespace(rng):
    """Names repeat, within a namespace and among namespaces.

    Of two, the first letter is the same.
    """
    name = rng.choice(["u", "item", "icon", "x", ""])
    weight = f":{rng.choice(['2', '0.5'])}" if name and rng.random() < 0.2 else ""
    words = []
    for _ in range(rng.randrange(5)):
        word = rng.choice(["x", "y", "é", "d_web", ""])
        kinds = ["number", "text"] if word and word != "d_web" else ["number"]
        given = {
            "number": a_number,
            "text": lambda rng: rng.choice(["red", "b|c", "http://x", "é", "-", "--1"]),
        }
        if not word or rng.random() < 0.6:
            word += f":{given[rng.choice(kinds)](rng)}"
        words.append(word)
    odd = {"e", "-", "."}  # of which VW takes the text for 0
    return f"|{name}{weight}" + "".join(
        rng.choice([" ", "  ", "\t"]) + word for word in words if word[2:] not in odd
    )


def some_features(rng):
    return " ".join(a_namespace(rng) for _ in range(rng.randrange(1, 4)))


def an_example(rng, *, labelled=True):
    """The lines of an example of text that VW reads."""
    heads, count = [], rng.randrange(1, 5)
    chosen, shared = rng.randrange(count), rng.random() < 0.6
    label = f"0:{rng.choice(['-1', '0', '1.5', '+.25'])}:{rng.choice(['0.5', '.25', '1', '1e-1'])}"
    if shared:
        heads.append(rng.choice(["shared ", " shared ", "shared  ", "shared tag", "id\tshared "]))
    for place in range(count):
        tag = rng.choice(["", "", "tag", "'tag ", "shared_1", "sharedx"])
        if labelled and place == chosen:
            heads.append(rng.choice(["", " ", "id\t"]) + f"{label} {tag}")
        else:
            heads.append(rng.choice(["", " "]) + tag)
    return [head + some_features(rng) for head in heads], shared


@pytest.mark.parametrize("seed", SEEDS)
def test_of_any_text_the_same_examples_are_read_as_vw_reads_and_at_the_same_loss(tmp_path, seed):
    rng = random.Random(seed)
    labelled = [rng.random() < 0.8 for _ in range(LINES)]
    blocks = ["\n".join(an_example(rng, labelled=each)[0]) for each in labelled]
    path = tmp_path / "log"
    path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    loss, examples = driver(path)
    found = vw_progressive(path, ARGS, "text")
    assert found.average_loss == pytest.approx(loss, abs=2e-5)
    assert (found.examples, found.labelled) == (examples, sum(labelled)) == (LINES, sum(labelled))
    (piece,) = text_pieces(path)
    assert len(rows_of([piece])) == found.labelled
    assert sum(piece.left_out.counts.values()) == LINES - found.labelled


@pytest.mark.parametrize("seed", SEEDS)
def test_no_feature_of_text_is_lost_however_often_its_name_is_met(tmp_path, seed):
    rng = random.Random(seed)
    blocks = [an_example(rng) for _ in range(LINES)]
    (tmp_path / "log").write_text(
        "\n\n".join("\n".join(lines) for lines, _ in blocks), encoding="utf-8"
    )
    parser = TextFormatParser(VW)
    for (lines, shared), row in zip(blocks, rows_of(text_pieces(tmp_path / "log")), strict=True):
        examples = [of_vw(parser.parse_line(f"{line} ")) for line in lines]
        found = [
            as_vw(each, chained=True)
            for each in ([row.context] if shared else []) + list(row.features)
        ]
        assert found == [pytest.approx(each) for each in examples]


GOOD = {
    "_label_cost": -1,
    "_label_probability": 0.5,
    "_label_Action": 2,
    "_labelIndex": 1,
    "a": [2, 1],
    "p": [0.5, 0.5],
}
MULTI = [{"f": "x"}, {"f": "y"}]


def line(context=None, **changes):
    return json.dumps(GOOD | changes | {"c": {"_multi": MULTI} | (context or {})})


def read(folder, content, pieces=dsjson_pieces):
    (folder / "log").write_text(content, encoding="utf-8")
    return rows_of(pieces(folder / "log"))


@pytest.mark.parametrize(
    ("context", "features"),
    [
        ('"tags": [{"name": "live"}, {"name": "hot"}]', {"tags.name": ["live", "hot"]}),
        (
            '"cart": [{"price": 2}, {"price": 3, "sale": true}]',
            {"cart.price": 5.0, "cart.sale": True},
        ),
        ('"a": [{"b": {"c": "x"}}, {"b": [{"c": "y"}, {"c": "z"}]}]', {"a.b.c": ["x", "y", "z"]}),
        ('"a": [{"v": [1, 2]}, {"v": [3]}]', {"a.v.0": 4.0, "a.v.1": 2.0}),
        ('"a": [[1, 2], [3]]', {"a.0.0": 1.0, "a.0.1": 2.0, "a.1.0": 3.0}),
        ('"seen": ["x", {"by": "y"}, "z"]', {"seen": ["x", "z"], "seen.by": "y"}),
        ('"on": [{"x": true}, {"x": true}, {"x": false}]', {"on.x": 2.0}),
        ('"x": "red", "x": "blue", "x": ["green"]', {"x": ["red", "blue", "green"]}),
        ('"x": 1, "y": {"x": 2, "x": 4}, "x" : 3', {"x": 4.0, "y.x": 6.0}),
        ('"u": {"x": "red"}, "u": {"x": "blue"}', {"u.x": ["red", "blue"]}),
        (
            '"x": [{"v": "red"}, {"v": 2}, {"v": "blue"}]',
            {"x.v": 2.0, "x.v=red": 1.0, "x.v=blue": 1.0},
        ),
        ('"a": {"b": "x"}, "a.b": "y"', {"a.b": "x", "a\\.b": "y"}),
        ('"a.b": 1, "a": {"b": 2}', {"a.b": 2.0, "a\\.b": 1.0}),
        (
            '"a.b": {"c": 1}, "a": {"b.c": 2, "b": {"c": 3}}',
            {"a.b.c": 3.0, "a.b\\.c": 2.0, "a\\.b.c": 1.0},
        ),
        ('"v1.2": 1, "u": {"v1.2": 2}', {"v1.2": 1.0, "u.v1.2": 2.0}),
        ('"_text": "red blue red", "x": "red"', {"red": 2.0, "blue": 1.0, "x": "red"}),
        ('"s": "a \\"x\\": b", "t": {"_n": {"x": 1}}', {"s": 'a "x": b'}),
    ],
)
def test_of_features_of_one_name_in_dsjson_none_is_lost(tmp_path, context, features):
    (row,) = read(tmp_path, line({"h": 0}).replace('"h": 0', context))
    assert row.context == features
    multi = json.dumps(MULTI)
    (row,) = read(tmp_path, line().replace(multi, f"[{{{context}}}, {{}}]"))
    assert row.features == [features, {}]


@pytest.mark.parametrize(
    ("words", "features"),
    [
        ("|u t:red t:blue", {"u.t": ["red", "blue"]}),
        ("|u t:red |x y |u t:blue", {"u.t": ["red", "blue"], "x.y": 1.0}),
        ("|u t:2 t:red |u t", {"u.t": 3.0, "u.t=red": 1.0}),
        ("|item x |icon x |item:2 x", {"item.x": 3.0, "icon.x": 1.0}),
        ("|u.v w |u v.w:2", {"u\\.v.w": 1.0, "u.v.w": 2.0}),
        ("| u.v:5 |u v", {"u\\.v": 5.0, "u.v": 1.0}),
        ("|u :1 :2 |u :4 0:8", {"u.0": 13.0, "u.1": 2.0}),
        ("|u url:http://x|y z", {"u.url": "http://x|y", "u.z": 1.0}),
        ("|u n:2|v w", {"u.n": 2.0, "v.w": 1.0}),
        ("|u g:e h:- i:.", {"u.g": "e", "u.h": "-", "u.i": "."}),
        ("|u:2 g:0x1f h:5e i:-.5", {"u.g": 62.0, "u.h": 10.0, "u.i": -1.0}),
    ],
)
def test_of_features_of_one_name_in_text_none_is_lost(tmp_path, words, features):
    (row,) = read(tmp_path, f"shared {words}\n0:-1:0.5 {words}\n", text_pieces)
    assert row.context == features
    assert row.features == [features]


@pytest.mark.parametrize(
    "given",
    [
        line(EventId=None),
        line(EventId=None, eventId="e"),
        line(_outcomes=None),
        line(a=[2.0, 1.0]),
        line(a=2),
        line(a=0, _labelIndex=1),
        line(a=[None, 2, 1]),
        line(p=None),
        line(p=0.5),
        line(p=["NaN", 0.5]),
        line(pdrop=None, _skipLearn=None),
        line(Timestamp=""),
        line(_label_Action=2.0),
        line(_label_Action=None),
        line({"_multi": [None, None, *MULTI]}),
        line({"_multi": 0}).replace('{"_multi": 0}', json.dumps({"s": {"_multi": MULTI}})),
        line().replace("_label_cost", "_label_COST").replace("_label_Action", "_label_action"),
        line()
        .replace("_labelIndex", "_labelindex")
        .replace("_label_probability", "_label_Probability"),
        json.dumps(
            {
                "a": [2],
                "c": {key: value for key, value in GOOD.items() if key[0] == "_"}
                | {"_multi": MULTI},
            }
        ),
        "\ufeff" + line(),
        line()
        .replace("_label_Action", "_label_action")
        .replace('{"_label_cost"', '{"_label_Cost": 7, "_label_cost"'),
    ],
)
def test_a_line_that_vw_reads_is_read(tmp_path, given):
    """Alone, beside others, and as VW's command line reads it."""
    (row,) = read(tmp_path, given)
    assert (row.chosen, row.propensity, row.reward, len(row.features)) == (1, 0.5, 1.0, 2)
    (tmp_path / "log").write_text(f"{line()}\n{given}\n", encoding="utf-8")
    loss, examples = driver(tmp_path / "log", ["--dsjson"])
    found = vw_progressive(tmp_path / "log", ARGS, "dsjson")
    assert found.average_loss == pytest.approx(loss, abs=1e-5)
    assert found.labelled == examples == 2


def test_probabilities_by_their_other_name_are_a_pmf(tmp_path):
    (row,) = read(tmp_path, line().replace('"p"', '"_p"'))
    assert row.pmf.tolist() == [0.5, 0.5]


def test_labels_in_any_case_are_labels(tmp_path):
    """VW's own value."""
    costs = [-1, 0, -1]
    keys = [
        ("_label_Cost", "_label_Probability"),
        ("_label_COST", "_label_PROBABILITY"),
        ("_label_cost", "_label_pROB"),
    ]
    keys[2] = ("_label_cOST", "_label_pROBABILITY")
    lines = [
        {
            cost: value,
            probability: 0.5,
            "_labelIndex": 0,
            "a": [1, 2],
            "c": {"_multi": [{"x": 1}, {"y": 1}]},
        }
        for value, (cost, probability) in zip(costs, keys, strict=True)
    ]
    (tmp_path / "log").write_text("\n".join(map(json.dumps, lines)))
    found = vw_progressive(tmp_path / "log", "--cb_explore_adf", "dsjson")
    assert found.average_loss == pytest.approx(-0.983333, abs=1e-6)
    assert [row.reward for row in rows_of(dsjson_pieces(tmp_path / "log"))] == [1, 0, 1]


@pytest.mark.parametrize(
    ("given", "target"),
    [
        (line(_label_foo=1), "_label_foo"),
        (line(_labelled=1), "_labelled"),
        (line(_label={"cost": 1}), "_label"),
        (line({"u": {"_label_cost": -1}}), "_label_cost"),
        (line({"_multi": [{"_label_cost": -1}, {}]}), "_label_cost"),
        (line(_label_ca={"action": 1.5, "cost": 1, "pdf_value": 0.1}), "_label_ca"),
        (line(_outcomes=[{"_label_cost": 0, "_a": [1], "_p": [1.0]}]), "_outcomes"),
        (line({"_slots": [{"x": 1}]}), "c._slots"),
        (line({"_multi": [{"__aid": 3}, {}]}), "__aid"),
        (line({"_multi": [{}, None, {}]}), "c._multi"),
        (line({"_multi": [{}, {"_multi": [{}]}]}), "c._multi"),
        (line(_label_probability=None), "_label_cost"),
    ],
)
def test_a_label_that_is_not_read_here_is_a_bad_line_and_no_unlabelled_one(tmp_path, given, target):
    path = tmp_path / "log"
    path.write_text(f"{line()}\n{given}\n")
    with pytest.raises(BadRowError, match="line 2") as caught:
        rows_of(dsjson_pieces(path))
    assert caught.value.target == target
    with pytest.raises(BadRowError, match="line 2"):
        vw_progressive(path, ARGS, "dsjson")
    found = vw_progressive(path, ARGS, "dsjson", skip_bad=True)
    assert (found.labelled, found.skipped) == (1, 1)
    assert "line 2" in found.left_out.first_bad


def test_only_namespaces_named_in_ascii_are_given_to_vw():
    """Checked on the parsed line, before VW sees any of it."""
    _check_namespaces({"u": {"é": 1, "x": ["é"]}, "_multi": [{"s": {"x": 1}}]})
    with pytest.raises(BadRowError, match="ASCII"):
        _check_namespaces({"u": {"x": 1}, "é": {}})


@pytest.mark.parametrize(
    "markers",
    [
        ["[CHECKPOINT 2024-05-01T00:00:00Z]"],
        ["# exported", "", "null", " " + line()],
        ["]", "x" * 70_000],
    ],
)
@pytest.mark.parametrize("where", [0, 10, 20])
def test_lines_that_do_not_begin_with_a_brace_are_passed_over_and_counted(tmp_path, markers, where):
    lines = [line(EventId=f"e{number}", _label_cost=-(number % 3)) for number in range(20)]
    path = tmp_path / "log"
    path.write_text("\n".join([*lines[:where], *markers, *lines[where:]]) + "\n")
    plain = tmp_path / "plain"
    plain.write_text("\n".join(lines))
    found, expected = (vw_progressive(each, ARGS, "dsjson") for each in (path, plain))
    assert (found.average_loss, found.examples) == (expected.average_loss, 20)
    assert found.average_loss == pytest.approx(driver(path, ["--dsjson"])[0], abs=1e-5)
    count = sum(bool(each) for each in markers)
    (piece,) = dsjson_pieces(path)
    assert [row.event_id for row in rows_of([piece])] == [f"e{number}" for number in range(20)]
    assert piece.left_out.counts == found.left_out.counts == {MARKER: count}


@pytest.mark.parametrize(
    ("content", "loss"),
    [
        (" shared |u d=web\n|a t=x\n0:-1:0.5 |a t=y\n", None),
        ("shared_1|a t=x\n0:-1:0.5 |a t=y\n", None),
        ("shared tag|u d\nshared_2|a t=x\n0:-1:0.5 shared_3|a t=y\n", None),
        ("  shared  |u d\n 0:-1:0.5 'shared_1 |a\n", None),
        ("id\tshared |u d\nx\t0:-1:0.5 |a\n", None),
        ("shared |u d\n|a x |b:2\n0:-1:0.5 |a y |b:2\n", None),
    ],
)
def test_a_first_line_of_text_is_read_as_vw_reads_it(tmp_path, content, loss):
    path = tmp_path / "log"
    path.write_text(f"{content}\n" * 3)
    loss, examples = driver(path)
    found = vw_progressive(path, ARGS, "text")
    assert found.average_loss == pytest.approx(loss, abs=1e-5)
    assert found.labelled == examples == len(rows_of(text_pieces(path))) == 3


@pytest.mark.parametrize("value", ["1,5", "12:30", "nano", "info", "5kg", "inf", "-nan", ""])
def test_a_value_that_begins_as_a_number_and_goes_on_is_refused(tmp_path, value):
    path = tmp_path / "log"
    good = "shared |u d\n|a x\n0:-1:0.5 |a y\n\n"
    path.write_text(good + good.replace("|a y", f"|a y:{value}") + good)
    with pytest.raises(BadRowError, match="line 7"):
        rows_of(text_pieces(path))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (
            "ccb shared |u d\nccb action |a x\nccb action |a y\nccb slot 0:-1:0.5,1:0.5 |s z\n",
            "CCB",
        ),
        ("slates shared -1 |u d\nslates action 0 |a x\nslates slot 0:0.5 |s z\n", "slates"),
        ("ca 1.5:0.5:0.1 |u d\n", "CATS"),
    ],
)
def test_text_of_another_problem_says_so(tmp_path, content, what):
    path = tmp_path / "log"
    path.write_text(f"{content}\n" * 3)
    for read_it in (lambda: rows_of(text_pieces(path)), lambda: vw_progressive(path, ARGS, "text")):
        with pytest.raises(BadRowError, match=f"line 1: .*{what}"):
            read_it()


def replayed(path, method, policy, *options):
    """The report of the command, or what it says when it ends in an error."""
    out = path.with_suffix(".report")
    words = ["replay", "--log", str(path), "--format", "dsjson" if path.suffix == ".json" else "vw"]
    done = CliRunner().invoke(
        app, [*words, "--method", method, "--policy", policy, "--out", str(out), *options]
    )
    return done.exception if done.exit_code else json.loads(out.read_bytes())


VW_POLICY = f"{{kind: vw, args: '{ARGS}'}}"


def test_both_methods_say_the_same_rows_or_what_was_left_out_and_why(tmp_path):
    good = [line(EventId=f"e{number}", _label_cost=-(number % 2)) for number in range(30)]
    others = [
        "[CHECKPOINT]",
        line(_label_cost=None),
        line(a=[]),
        line(_skipLearn=True),
        line(_label_foo=1),
        line(a=None),
    ]
    path = tmp_path / "log.json"
    path.write_text("\n".join([*good, *others]).replace(', "p": [0.5, 0.5]', ""))
    ope, progressive = (
        replayed(path, method, policy, "--skip-bad")["log"]
        for method, policy in (("ope", "uniform"), ("progressive", VW_POLICY))
    )
    common = {MARKER: 1, SKIP_LEARN: 1, "bad rows": 1}
    assert (ope["rows"], ope["skipped"], ope["left_out"]) == (32, 2, common | {NO_LABEL: 1})
    assert (progressive["rows"], progressive["skipped"]) == (30, 2)
    assert progressive["left_out"] == common | {
        NO_ACTIONS: 2,
        "examples without a label, which are predicted only": 1,
    }
    assert "_label_foo" in ope["first_bad"]
    assert "line 35" in progressive["first_bad"]
    text = tmp_path / "log.txt"
    example = "shared |u d\n|a x\n{}|a y\n\n"
    text.write_text(example.format("0:-1:0.5 ") * 20 + example.format("") * 3)
    ope, progressive = (
        replayed(text, method, policy)["log"]
        for method, policy in (("ope", "uniform"), ("progressive", VW_POLICY))
    )
    assert (ope["rows"], progressive["rows"]) == (20, 20)
    assert list(ope["left_out"].values()) == list(progressive["left_out"].values()) == [3]


@pytest.mark.parametrize("method", ["ope", "sessions"])
@pytest.mark.parametrize(
    ("lacking", "where"),
    [
        ({"p": None}, (7,)),
        ({"p": [0.9, 0.3]}, (0, 29)),
        ({"a": [2]}, range(1, 30)),
        ({"a": None}, (3, 4)),
    ],
)
def test_rows_that_lack_a_pmf_are_evaluated_among_others_that_have_one(
    tmp_path, method, lacking, where
):
    """What is estimated from the propensities is as if all had one.

    What the logging policy earned is known anyway.
    """
    lines = [{"EventId": f"e{number}", "_label_cost": -(number % 3)} for number in range(30)]
    names = [] if method == "ope" else ["--session", "user"]
    whole, partly = tmp_path / "whole.json", tmp_path / "partly.json"
    whole.write_text("\n".join(line({"user": "u"}, **each) for each in lines))
    partly.write_text(
        "\n".join(
            line({"user": "u"}, **each, **(lacking if n in where else {}))
            for n, each in enumerate(lines)
        )
    )
    expected, found = (
        replayed(path, method, "uniform", *names)["results"] for path in (whole, partly)
    )
    for one, other in zip(expected, found, strict=True):
        for name in {"ips", "snips", "wis", "pdwis"} & set(one["estimates"]):
            assert other["estimates"][name]["value"] == pytest.approx(
                one["estimates"][name]["value"], rel=1e-9
            )
    if method == "ope":
        logging = found[0]["estimates"]
        assert [logging[name]["value"] for name in ("ips", "snips")] == pytest.approx([1.0, 1.0])
        assert logging["ips"]["max_weight"] == 1.0
        assert all(math.isfinite(each["value"]) for each in logging.values())


@pytest.mark.parametrize(
    ("method", "policy"), [("ope", "uniform"), ("progressive", VW_POLICY), ("sessions", "uniform")]
)
@pytest.mark.parametrize(
    ("suffix", "content", "said"),
    [
        (
            ".json",
            line(_outcomes=[{"_label_cost": 0, "_a": [1], "_p": [1.0]}]),
            "bad rows: 20 .*CCB, slates",
        ),
        (".json", line({"_slots": [{"x": 1}, {"x": 2}]}, a=[]), "bad rows: 20 .*CCB, slates"),
        (
            ".json",
            line(_label_ca={"action": 1.5, "cost": 1, "pdf_value": 0.1}),
            "bad rows: 20 .*CATS",
        ),
        (".json", "[CHECKPOINT]", "lines that do not begin with {: 20"),
        (".json", line(_skipLearn=True), "lines with _skipLearn: 20"),
        (".json", line(_label_cost=None), "without a label.*: 20"),
        (
            ".txt",
            "ccb shared |u d\nccb action |a x\nccb slot 0:-1:0.5 |s z\n",
            "bad rows: 20 .*CCB",
        ),
        (
            ".txt",
            "slates shared -1 |u d\nslates action 0 |a x\nslates slot 0:0.5 |s z\n",
            "bad rows: 20 .*slates",
        ),
        (".txt", "ca 1.5:0.5:0.1 |u d\n", "bad rows: 20 .*CATS"),
        (".txt", "shared |u d\n|a x\n", "examples without a label.*: 20"),
    ],
)
def test_a_log_without_a_row_says_why_and_is_an_error(
    tmp_path, method, policy, suffix, content, said
):
    path = tmp_path / f"log{suffix}"
    path.write_text(f"{content}\n" * 20)
    found = replayed(path, method, policy, "--skip-bad")
    assert re.search(said, str(found)), found


def test_a_policy_learns_from_a_feature_that_is_met_among_others_of_its_name(tmp_path):
    """Live decides, beside a tag that says nothing.

    Two actions, so chance is 0.5; 600 rows teach it.
    """
    rng = random.Random(1)
    path = tmp_path / "log.json"
    lines = []
    for number in range(600):
        live = rng.randrange(2)
        tags = [[{"name": "live"}], []][live != 0] + [{"name": rng.choice(["hot", "new"])}]
        chosen = rng.randrange(2)
        actions = [
            {"tags": tags},
            {"tags": [*([{"name": "live"}] if live else []), {"name": rng.choice(["hot", "new"])}]},
        ]
        cost = -1.0 if chosen == live else 0.0
        label = {
            "_label_cost": cost,
            "_label_probability": 0.5,
            "_label_Action": chosen + 1,
            "_labelIndex": chosen,
        }
        lines.append(
            json.dumps(
                label
                | {"EventId": f"e{number}", "a": [chosen + 1, 2 - chosen], "c": {"_multi": actions}}
            )
        )
    path.write_text("\n".join(lines))
    spec = tmp_path / "home.yaml"
    spec.write_text(
        "name: home\nuse: [features]\nexploration: {kind: epsilon_greedy, epsilon: 0.1}\n"
    )
    (ours,) = replayed(path, "progressive", str(spec))["results"]
    (vws,) = replayed(path, "progressive", "{kind: vw, args: '--cb_explore_adf --epsilon 0.1'}")[
        "results"
    ]
    assert -ours["average_loss"] > 0.75
    assert -vws["average_loss"] > 0.75
