"""Whatever a log's numbers, every method of ``banditloop replay`` answers or names what it cannot use."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.linalg import LinAlgError
from typer.testing import CliRunner

from bandits.errors import BanditloopError
from serve_app.cli import main as cli

COLUMNS = (
    "{reward: click, propensity: p, event_id: id, action: shown, actions: of, context: [x, y]}"
)
Cell = Callable[[int, np.random.Generator], object]
SAME: Cell = lambda _at, _rng: 0.5  # noqa: E731 - a column
TEXT: Cell = lambda _at, _rng: "t"  # noqa: E731
CLICK: Cell = lambda at, _rng: 1 - at % 2  # noqa: E731
LOGS: dict[str, tuple[int, Cell, Cell, Cell, Cell]] = {
    "two rows": (2, lambda at, _: 1732000000 + 60 * at, TEXT, SAME, CLICK),
    "one row": (1, lambda _at, _rng: 1e12, TEXT, lambda _at, _rng: 1.0, CLICK),
    "large": (
        40,
        lambda _, rng: rng.normal() * 1e30,
        lambda _, rng: rng.normal() * 1e-30,
        SAME,
        CLICK,
    ),
    "beyond float32": (
        40,
        lambda _, rng: rng.normal() * 1e200,
        lambda _, rng: rng.normal() * 1e-200,
        SAME,
        CLICK,
    ),
    "beyond sums": (40, lambda _, rng: rng.normal() * 1e307, lambda _at, _rng: 1e308, SAME, CLICK),
    "large rewards": (40, lambda _, rng: rng.normal(), TEXT, SAME, lambda at, _: 1e12 * (at % 2)),
    "rare": (
        40,
        lambda _, rng: rng.normal(),
        TEXT,
        lambda at, _: 1e-12 if at % 7 == 0 else 0.5,
        CLICK,
    ),
    "rarer": (
        40,
        lambda _, rng: rng.normal(),
        TEXT,
        lambda at, _: 1e-300 if at % 7 == 0 else 0.5,
        CLICK,
    ),
    "rarest": (
        40,
        lambda _, rng: rng.normal(),
        TEXT,
        lambda at, _: 5e-324 if at % 7 == 0 else 0.5,
        CLICK,
    ),
    "nothing": (40, lambda _at, _rng: 0, lambda _at, _rng: "", SAME, lambda _at, _rng: 0),
    "no numbers": (40, lambda _at, _rng: "nan", lambda _at, _rng: "inf", SAME, CLICK),
    "all alike": (40, lambda _at, _rng: 1e12, lambda _at, _rng: 1e12, SAME, lambda _at, _rng: 1),
}
METHODS = {
    "normal": ["uniform"],
    "auto": [
        "uniform",
        "--clip",
        "auto",
        "--tau",
        "auto",
        "--lambda",
        "auto",
        "--html",
        "page.html",
    ],
    "bootstrap": ["uniform", "--interval", "bootstrap"],
    "anytime": ["uniform", "--interval", "anytime"],
    "bernstein": ["uniform", "--interval", "bernstein"],
    "sessions": ["uniform", "--method", "sessions", "--session", "y"],
    "ridge": ["{ridge}", "--method", "progressive"],
    "vw": ["{vw}", "--method", "progressive"],
    "rejection": ["{ridge}", "--method", "rejection"],
}
SPECS = {
    "ridge": "{name: r, learner: {kind: ridge, interactions: [[context, item]]}, exploration: {kind:"
    " lints}}",
    "vw": "{name: v, learner: {kind: vw, args: '--cb_explore_adf -q ci'}, exploration: {kind:"
    " epsilon_greedy}}",
}


def written(folder: Path, name: str) -> Path:
    count, *columns = LOGS[name]
    rng = np.random.default_rng(0)
    lines = ["id,x,y,shown,of,p,click"]
    for at in range(count):
        x, y, p, click = (column(at, rng) for column in columns)
        lines.append(f"{at},{x},{y},{'ab'[at % 2]},a|b,{p},{click}")
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    return folder / "log.csv"


@pytest.mark.parametrize("name", LOGS)
@pytest.mark.parametrize("method", METHODS)
def test_no_numbers_end_in_a_traceback_or_a_warning(tmp_path, monkeypatch, name, method):
    monkeypatch.chdir(tmp_path)
    for spec, text in SPECS.items():
        (tmp_path / f"{spec}.yaml").write_text(text)
    policy, *options = METHODS[method]
    policy = policy.format(**{spec: f"{spec}.yaml" for spec in SPECS})
    log = ["--log", str(written(tmp_path, name)), "--format", "csv", "--columns", COLUMNS]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = CliRunner().invoke(cli.app, ["replay", *log, "--policy", policy, *options])
    assert done.exception is None or isinstance(done.exception, BanditloopError), repr(
        done.exception
    )
    usable = name not in {"beyond float32", "beyond sums", "rare", "rarer", "rarest", "one row"}
    # no row is of a session there
    if usable and method != "rejection" and (name, method) != ("nothing", "sessions"):
        assert done.exception is None


@pytest.mark.parametrize(
    "error",
    [MemoryError(), LinAlgError("Singular matrix"), FloatingPointError("x"), OverflowError()],
)
def test_a_computation_that_fails_all_the_same_is_one_line(monkeypatch, capsys, error):
    def fails() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith("error memory:" if isinstance(error, MemoryError) else "error numbers:")
    assert "\n" not in said
