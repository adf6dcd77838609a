"""Tables as others write them: what a cell is, its column says."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tables import COLUMNS, campaign, log_of, written
from typer.testing import CliRunner

from bandits.errors import BadRowError, ReplayError
from serve_app.cli.main import app
from serve_app.cli.train import app as train_app
from simulator.learners.trained import read_trained
from simulator.logs.csv_columns import CsvColumns
from simulator.logs.formats import open_log
from simulator.logs.left_out import left_out_of
from simulator.logs.obd import obd_pieces
from simulator.logs.tables import ColumnEvidence, column_features
from simulator.ope.table_target import TableTarget
from simulator.ope.targets import UniformTarget
from simulator.replay.evaluate import OpeQuestion, evaluate


def table_of(path: Path, cells) -> Path:
    """Of the first of the cells a is likely, of the second b, and so in turn."""
    rows = [
        (cell, action, 0.9 if (k + at) % 2 == 0 else 0.1)
        for k, cell in enumerate(cells)
        for at, action in enumerate("ab")
    ]
    return written(path, rows, "x,action,probability")


def contexts(pieces) -> list[object]:
    return [
        row.context.get("x")
        for piece in pieces
        for batch in piece.batches()
        for row in batch.decisions
    ]


def ips(log: Path, table: Path, columns=COLUMNS, **options) -> float:
    report = evaluate(
        OpeQuestion([TableTarget(table)], ("ips",)),
        open_log(str(log), "csv", columns=columns, **options),
    )
    return report.results[0].estimates["ips"].value


TWO_THINGS = [
    ("02139", "2139"),
    ("1.10", "1.1"),
    ("1_000", "1000"),
    ("1e3", "1000"),
    ("+1", "1"),
    ("1.", "1"),
    ("2.0", "2"),
    ("00", "0"),
    (".5", "0.5"),
    ("12345678901234567890", "12345678901234567891"),
    ("1,000", "1000"),
    ("1,5", "1.5"),
    ("NaN", "1"),
    ("inf", "1"),
    ("True", "1"),
    ("0x10", "16"),
    ("\uff11", "1"),  # a digit, of another script
    ("0012.50", "12.5"),
]


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize(("one", "other"), TWO_THINGS)
def test_two_texts_are_two_contexts(tmp_path, monkeypatch, one, other, shards):
    """A table that tells them apart earns 0.9 / 0.5 on one and 0.1 / 0.5 on the other."""
    monkeypatch.setattr("simulator.logs.formats.LEAST_BYTES", 1)
    log = log_of(
        tmp_path / "log.csv", [one, other] * 20 if one != "NaN" else [one, "x", other, "y"] * 10
    )
    cells = [one, other] if one != "NaN" else [one, "x", other, "y"]
    assert ips(log, table_of(tmp_path / "t.csv", cells), shards=shards) == pytest.approx(
        1.0, abs=1e-12
    )
    pieces = open_log(str(log), "csv", columns=COLUMNS, shards=shards)
    assert len(set(contexts(pieces))) == len(cells)


PLAIN = st.builds(
    lambda sign, whole, part: f"{sign}{whole}{part}",
    st.sampled_from(["", "-", "+", "0"]),
    st.integers(0, 120),
    st.sampled_from(["", ".", ".0", ".5", ".50", ".25", ".250"]),
)


@given(st.lists(PLAIN, min_size=1, max_size=12), st.integers(1, 5))
def test_a_column_never_makes_one_number_of_two_texts(cells, parts):
    """Whatever it holds, and however it is cut."""
    whole, merged = ColumnEvidence(), ColumnEvidence()
    whole.add(pa.array(cells))
    for start in range(0, len(cells), parts):
        part = ColumnEvidence()
        part.add(pa.array(cells[start : start + parts]))
        merged.merge(part)
    assert merged.kind == whole.kind
    values = column_features(pa.array(cells), whole.kind)
    by_value: dict[object, set[str]] = {}
    for cell, value in zip(cells, values, strict=True):
        by_value.setdefault(value, set()).add(cell)
    apart = {
        value: texts - {"-0", "-0.0", "-0.00"} for value, texts in by_value.items()
    }  # a program's own negative zero
    assert all(len(texts) <= 1 for texts in apart.values())


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "2", "10"], [1.0, 2.0, 10.0]),
        (["1.50", "2.25", "10.00"], [1.5, 2.25, 10.0]),  # a price
        (["1.0", "2.5", "0.125"], [1.0, 2.5, 0.125]),  # as pandas writes
        (["1", "2.5", "0.125"], [1.0, 2.5, 0.125]),  # as JavaScript writes
        (["1e-05", "0.001", "1e+16"], [1e-5, 0.001, 1e16]),
        (["1.000000000000000000e+00", "2.500000000000000000e-01"], [1.0, 0.25]),  # numpy.savetxt
        (["1", "", "2"], [1.0, None, 2.0]),
        (["1.5", "nan", "#N/A"], [1.5, None, None]),
        (["NA", "FR", ""], ["NA", "FR", None]),  # Namibia
        (["True", "False"], ["True", "False"]),
        (["-1", "0", "1"], [-1.0, 0.0, 1.0]),
        ([" 7", "17"], [7.0, 17.0]),
    ],
)
def test_a_column_of_numbers_is_one(cells, values):
    evidence = ColumnEvidence()
    evidence.add(pa.array(cells))
    assert column_features(pa.array(cells), evidence.kind) == values


@pytest.mark.parametrize("shards", [1, 2, 7])
@pytest.mark.parametrize("where", ["last row", "other file"])
def test_the_whole_log_says_what_a_column_is(tmp_path, monkeypatch, shards, where):
    """One zero in front, at the end of the last file, makes the column text in all pieces."""
    monkeypatch.setattr("simulator.logs.formats.LEAST_BYTES", 1)
    cells = [str(number) for number in range(1000, 1200)]
    log_of(tmp_path / "a.csv", cells if where == "other file" else [*cells, "02139"])
    log_of(tmp_path / "b.csv", ["02139"] if where == "other file" else ["1"])
    pieces = open_log(f"{tmp_path}/*.csv", "csv", columns=COLUMNS, shards=shards)
    assert {type(value) for value in contexts(pieces)} == {str}
    declared = CsvColumns(**{**as_dict(COLUMNS), "kinds": {"x": "number"}})
    assert {
        type(value) for value in contexts(open_log(f"{tmp_path}/*.csv", "csv", columns=declared))
    } == {float}


def as_dict(columns: CsvColumns) -> dict[str, object]:
    return {name: getattr(columns, name) for name in columns.__struct_fields__}


def test_a_bad_row_that_is_left_out_does_not_say_what_a_column_is(tmp_path):
    """In files joined with their headers the second header is a bad row and not text."""
    log = log_of(tmp_path / "log.csv", ["7", "8"])
    log.write_text(log.read_text() * 2)
    pieces = open_log(str(log), "csv", columns=COLUMNS, skip_bad=True)
    assert contexts(pieces) == [7.0, 8.0, 7.0, 8.0]
    assert (
        str(left_out_of(pieces))
        == f"bad rows: 1 (the first: {log}, line 4: click is no number: 'click')"
    )
    with pytest.raises(BadRowError, match="line 4: click is no number: 'click'"):
        contexts(open_log(str(log), "csv", columns=COLUMNS))


def test_the_report_says_how_columns_were_read(tmp_path):
    log = written(
        tmp_path / "log.csv",
        [
            ("1", "02139", "7", "[web]", "a", "a|b", 0.5, 1),
            ("2", "2139", "8", "app", "b", "a|b", 0.5, 0),
        ],
        "id,zip,hour,device,shown,of,p,click",
    )
    columns = (
        "{reward: click, propensity: p, action: shown, actions: of, context: [zip, hour, device,"
        " id],"
        " kinds: {id: text}}"
    )
    out = ["--out", str(tmp_path / "r.json"), "--html", str(tmp_path / "r.html")]
    command = [
        "replay",
        "--log",
        str(log),
        "--format",
        "csv",
        "--columns",
        columns,
        "--policy",
        "uniform",
        *out,
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "r.json").read_text())["log"]["columns"] == {
        "zip": "text, since it holds '02139'",
        "hour": "number",
        "device": "text",
        "id": "text, as declared",
    }
    assert "since it holds '02139'" in " ".join(done.output.split())
    assert "column zip: text" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("id;x;shown;of;p;click\n1;1,5;a;a|b;0,5;1\n", {"decimal": ","}),
        ("id\tx\tshown\tof\tp\tclick\n1\t1.5\ta\ta|b\t0.5\t1\n", {}),
        ("\ufeffid;x;shown;of;p;click\r\n1;1.5;a;a|b;0.5;1\r\n", {}),
        # pandas' index, Excel's empty column
        (",id,x,shown,of,p,click,\n0,1,1.5,a,a|b,0.5,True,\n", {}),
        ('"id","x","shown","of","p","click"\n"1","1.5","a","a|b","0.5","1"\n', {}),
        ("id^x^shown^of^p^click\n1^1.5^a^a|b^0.5^1.0\n", {"delimiter": "^"}),
        ("id,x,shown,of,p,click\n1, 1.5 ,a,a|b, 0.5, TRUE\n", {}),
    ],
)
def test_what_excel_and_pandas_write_is_read(tmp_path, text, options):
    (tmp_path / "log.csv").write_text(text, newline="")
    columns = CsvColumns(**{**as_dict(COLUMNS), **options})
    (row,) = [
        row
        for piece in open_log(str(tmp_path / "log.csv"), "csv", columns=columns)
        for batch in piece.batches()
        for row in batch.decisions
    ]
    assert (row.event_id, row.context, row.propensity, row.reward) == ("1", {"x": 1.5}, 0.5, 1.0)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"id,x,shown,of,p,click,x\n1,2,a,a|b,0.5,1,3\n", "two columns called 'x'"),
        ("id,x,shown,of,p,click\n1,2,a,a|b,0.5,1\n".encode("utf-16"), "UTF-16"),
        (b"\x1f\x8b\x08\x00rest", "compressed"),
        (b"PK\x03\x04rest", "a workbook"),
        (b"id,x,shown,of,p,cl\xffck\n", "no readable CSV file, in UTF-8"),
        (b"id;x;shown;of;p;clicks\n", "no column 'click', but id, x, shown, of, p, clicks"),
    ],
)
def test_a_table_that_cannot_be_read_right_is_refused(tmp_path, data, named):
    (tmp_path / "log.csv").write_bytes(data)
    with pytest.raises(ReplayError, match=named):
        open_log(str(tmp_path / "log.csv"), "csv", columns=COLUMNS)


@pytest.mark.parametrize(
    ("cell", "named"),
    [
        ("0,5", "with decimal: ',' a comma is the decimal point"),
        ("1,000.5", "p is no number"),
        ("1_0", "p is no number"),
        ("1e999", "p is no number"),
        ("", "p is no number"),
    ],
)
def test_a_number_that_is_none_is_refused(tmp_path, cell, named):
    log = written(tmp_path / "log.csv", [("1", "2", "a", "a|b", cell, 1)])
    with pytest.raises(BadRowError, match=f"line 2: .*{named}"):
        contexts(open_log(str(log), "csv", columns=COLUMNS))


def test_a_declared_number_that_is_none_is_a_bad_row(tmp_path):
    log = log_of(tmp_path / "log.csv", ["1", "", "+2.", "01", "many"])
    declared = CsvColumns(**{**as_dict(COLUMNS), "kinds": {"x": "number"}})
    assert contexts(open_log(str(log), "csv", columns=declared, skip_bad=True)) == [
        1.0,
        None,
        2.0,
        1.0,
    ]
    with pytest.raises(BadRowError, match="line 6: x is declared a number, and is none: 'many'"):
        contexts(open_log(str(log), "csv", columns=declared))
    with pytest.raises(ReplayError, match="kinds names 'y'"):
        CsvColumns(context=["x"], kinds={"y": "text"})


# Tables of probabilities


@pytest.mark.parametrize(
    ("logged", "tabled"),
    [
        (["1.5", "2.25"], ["1.50", "2.25"]),
        (["1", "2"], ["1.0", "2.0"]),
        (["1000", "2"], ["1e3", "2"]),
        (["1", ""], ["1", ""]),
        (["1", "nan"], ["1", "NaN"]),
        (["0.1", "0.30000000000000004"], ["0.10", "0.30000000000000004"]),
    ],
)
def test_a_number_is_found_in_a_table_however_it_is_written(tmp_path, logged, tabled):
    log = log_of(tmp_path / "log.csv", logged * 20)
    assert ips(log, table_of(tmp_path / "t.csv", tabled)) == pytest.approx(1.0, abs=1e-12)


def test_a_table_with_two_rows_for_one_number_is_refused(tmp_path):
    log, table = (
        log_of(tmp_path / "log.csv", ["1", "2139"]),
        table_of(tmp_path / "t.csv", ["02139", "2139", "1"]),
    )
    with pytest.raises(ReplayError, match="02139 and 2139 are of one context"):
        ips(log, table)
    declared = CsvColumns(**{**as_dict(COLUMNS), "kinds": {"x": "text"}})
    assert 0.0 < ips(log, table, declared) < 2.0


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("\ufeffx;action;probability\r\n1;a;1\r\n", None),
        ("x\taction\tprobability\n1\ta\t1.0\n\n", None),
        (",x,action,probability\n0,1,a,1.0\n", "column 1 has no name"),
        ("x,x,action,probability\n1,2,a,1.0\n", "two columns called 'x'"),
        ("x;action;probability\n1;a;0,9\n1;b;0,1\n", "with a point, not '0,9'"),
        ("x,action,probability\n1,a,1_0e-1\n", "with a point, not '1_0e-1'"),
    ],
)
def test_tables_of_excel_and_pandas_are_read_or_refused(tmp_path, text, named):
    (tmp_path / "t.csv").write_text(text, newline="")
    if named is None:
        assert ips(log_of(tmp_path / "log.csv", ["1"]), tmp_path / "t.csv") == 2.0
    else:
        with pytest.raises(ReplayError, match=named):
            TableTarget(tmp_path / "t.csv")


# The Open Bandit Dataset


@pytest.mark.parametrize(
    "features", [("1e5", "100000"), ("0042", "42"), ("7.10", "7.1"), ("9" * 20, "9" * 19 + "8")]
)
def test_hashed_features_of_obd_stay_what_they_are(tmp_path, features):
    (piece,) = obd_pieces(campaign(tmp_path / "men", features))
    row = next(piece.batches()).decisions[0]
    assert [each["item_feature_1"] for each in row.features] == list(features)
    assert row.context["user_feature_0"] == "1e5"


def test_numbers_of_obd_are_numbers(tmp_path):
    (piece,) = obd_pieces(campaign(tmp_path / "men", ("-0.67", "0.5")))
    assert [each["item_feature_1"] for each in next(piece.batches()).decisions[0].features] == [
        -0.67,
        0.5,
    ]
    assert piece.column_notes == {"item_feature_1": "number"}
    (bad,) = obd_pieces(campaign(tmp_path / "women", ("1", "2"), affinity="1_0"))
    with pytest.raises(BadRowError, match="user-item_affinity_0 is a number, not '1_0'"):
        next(bad.batches())


# Features of actions


@pytest.mark.parametrize(
    "cell",
    [
        '[{"price": 2, "tag": "new"}, {"price": 3.5, "brand": null}]',
        '{"b": {"price": 3.5}, "a": {"price": 2, "tag": "new"}}',
    ],
)
def test_actions_have_features(tmp_path, cell):
    log = written(tmp_path / "log.csv", [("1", "a", "a|b", 0.5, 1, cell)], "id,shown,of,p,click,f")
    columns = CsvColumns(reward="click", propensity="p", action="shown", actions="of", features="f")
    (row,) = next(open_log(str(log), "csv", columns=columns)[0].batches()).decisions
    assert row.features == [{"price": 2.0, "tag": "new"}, {"price": 3.5}]


@pytest.mark.parametrize(
    "cell", ['[{"price": 2}]', "{", '{"c": {}}', "[1, 2]", '"a"', '[{"price": 1e300}, {}]']
)
def test_features_that_are_of_no_action_are_refused(tmp_path, cell):
    log = written(tmp_path / "log.csv", [("1", "a", "a|b", 0.5, 1, cell)], "id,shown,of,p,click,f")
    columns = CsvColumns(reward="click", propensity="p", action="shown", actions="of", features="f")
    with pytest.raises(BadRowError, match="line 2: f is no JSON list of the actions' features"):
        list(open_log(str(log), "csv", columns=columns)[0].batches())


def test_features_of_actions_reach_the_reward_model(tmp_path):
    """DR's model sees in features that the reward is the action's quality; ids do not say it."""
    rng = np.random.default_rng(1)
    rows = []
    for number in range(600):
        quality = rng.integers(0, 2, 2)
        chosen = int(rng.integers(2))
        ids = [f"i{number}-{k}" for k in range(2)]
        given = json.dumps([{"good": float(each)} for each in quality])
        rows.append((number, ids[chosen], "|".join(ids), 0.5, quality[chosen], given))
    log = written(tmp_path / "log.csv", rows, "id,shown,of,p,click,f")
    found = {}
    for features in (None, "f"):
        columns = CsvColumns(
            reward="click", propensity="p", action="shown", actions="of", features=features
        )
        report = evaluate(
            OpeQuestion([UniformTarget()], ("dr",)), open_log(str(log), "csv", columns=columns)
        )
        found[features] = report.results[0].estimates["dr"].stderr
    assert found["f"] < 0.9 * found[None]


def test_what_is_trained_on_a_table_says_how_its_columns_were_read(tmp_path):
    (tmp_path / "p.yaml").write_text("name: p\nexploration: {kind: epsilon_greedy}\n")
    log = log_of(tmp_path / "log.csv", ["02139", "2139"])
    columns = "{reward: click, propensity: p, action: shown, actions: of, context: [x]}"
    command = [
        "policy",
        str(tmp_path / "p.yaml"),
        "--log",
        str(log),
        "--format",
        "csv",
        "--columns",
        columns,
    ]
    done = CliRunner().invoke(train_app, [*command, "--out", str(tmp_path / "model")])
    assert done.exit_code == 0, done.output
    assert "column x: text, since it holds '02139'" in done.output
    model = read_trained(tmp_path / "model")
    other = log_of(tmp_path / "other.csv", ["2139", "94107"])
    with pytest.raises(
        ReplayError, match="column x was text, and here it is number: declare it on both"
    ):
        evaluate(OpeQuestion([model], ("ips",)), open_log(str(other), "csv", columns=COLUMNS))
    declared = CsvColumns(**{**as_dict(COLUMNS), "kinds": {"x": "text"}})
    assert (
        evaluate(
            OpeQuestion([model], ("ips",)), open_log(str(other), "csv", columns=declared)
        ).log.rows
        == 2
    )
