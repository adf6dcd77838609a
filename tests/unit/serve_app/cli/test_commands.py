"""The command line as a whole: it prints what was meant, an error is one line, a thing has one name."""

import ast
import dataclasses
import inspect
import json
import re
import subprocess
import sys
from collections import defaultdict
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from rich.console import Console
from rich.table import Table

from bandits.errors import ReplayError, plain
from serve_app.cli import main as cli
from serve_app.cli import terminal
from serve_app.cli.demo.board import one_row_table
from serve_app.cli.doctor.command import findings_table
from serve_app.cli.replay.command import ReplayOptions
from simulator.doctor.checks.findings import DoctorReport, Finding

ROOT = Path(cli.__file__).resolve().parents[2]
SOURCES = [
    path
    for name in ("bandits", "policies", "serve_app", "simulator")
    for path in (ROOT / name).rglob("*.py")
]
NAMES = [
    "[x]",
    "[/red]",
    ":id:",
    ":smile:",
    "[bold]a[/bold]",
    "[default: a]",
    "a[train]",
    "[a-z]+",
    "\\[x]",
    "[",
    "🙂",
]


def commands():
    """Every command and group, by its words."""

    def below(command, words):
        yield words, command
        for name, each in getattr(command, "commands", {}).items():
            yield from below(each, (*words, name))

    return dict(below(typer.main.get_command(cli.app), ("banditloop",)))


COMMANDS = commands()
LEAVES = {
    words: each
    for words, each in COMMANDS.items()
    if not hasattr(each, "commands") or words[-1] in {"train", "worlds"}
}


def run(monkeypatch, capsys, *arguments: str) -> tuple[int, str]:
    """``banditloop`` with these arguments: its exit status, and all it prints."""
    monkeypatch.setattr("sys.argv", ["banditloop", *arguments])
    monkeypatch.setattr(cli, "prepare_environment", lambda: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    return ended.value.code or 0, out + err


def words_of(text: str | None) -> list[str]:
    return (text or "").split()


def is_within(words: list[str], text: str) -> bool:
    """Return whether the words come in this order, with only spaces and line breaks in between."""
    return "".join(words) in "".join(text.split())


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_says_all_that_it_was_given(words, monkeypatch, capsys):
    """On 80 columns.

    Typer's markup left out what stands in square brackets, which is every other default.
    """
    monkeypatch.setenv("COLUMNS", "80")
    status, said = run(monkeypatch, capsys, *words[1:], "--help")
    assert status == 0
    for param in COMMANDS[words].params:
        if not getattr(param, "hidden", False):
            assert is_within(words_of(param.help), said), param.name
    for paragraph in inspect.cleandoc(COMMANDS[words].help or "").split("\n\n"):
        assert is_within(words_of(paragraph), said)
    takes_policy = COMMANDS[words].context_settings.get("allow_extra_args", False)
    assert ("[OPTIONS] [POLICY]" in " ".join(said.split())) == takes_policy
    listed = said.partition("Commands:")[2]
    assert "..." not in listed  # a sentence that was cut off
    assert max(map(len, said.splitlines())) <= 80


HEAVY = (
    *("numpy", "numba", "pyarrow", "torch", "ray", "redis", "pydantic", "aiohttp"),
    *("vowpal_wabbit_next", "serve_app.settings"),
)


def modules_after(statement: str) -> set[str]:
    """The names of all modules that a new process has imported after a statement."""
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_the_list_of_commands_imports_no_command():
    listed = """
from serve_app.cli import main
try:
    main.app(["--help"])
except SystemExit:
    pass
"""
    imported = modules_after(listed)
    assert not imported.intersection((*HEAVY, "rich", "httpx", "importlib.metadata"))
    assert not imported.intersection(f"serve_app.cli.{name}" for name in cli.COMMANDS)


def test_the_help_of_a_command_imports_nothing_heavy():
    imported = modules_after("from serve_app.cli import main; list(main.LoadedOnDemand().values())")
    assert not imported.intersection(HEAVY)
    assert imported.issuperset(f"serve_app.cli.{name}" for name in cli.COMMANDS)


def test_the_fields_of_one_class_are_the_options_of_replay():
    """Each is declared once: its type, default and help reach Typer from there."""
    params = {param.name: param for param in COMMANDS["banditloop", "replay"].params}
    fields = dataclasses.fields(ReplayOptions)
    assert list(params) == [field.name for field in fields]
    assert all(
        params[field.name].default == field.default
        for field in fields
        if field.default is not dataclasses.MISSING
    )
    assert params["log"].required


def test_every_command_is_described_in_the_list(monkeypatch, capsys):
    status, said = run(monkeypatch, capsys, "--help")
    assert status == 0
    for name, line in cli.COMMANDS.items():
        assert is_within([name, *words_of(line)], said)
        assert len(name) + len(line) < 76  # on one line of 80 columns


def test_a_misspelled_command_is_corrected(monkeypatch, capsys):
    status, said = run(monkeypatch, capsys, "replai")
    assert status == 2
    assert "replay" in said


def test_the_version_is_printed(monkeypatch, capsys):
    status, said = run(monkeypatch, capsys, "--version")
    assert status == 0
    assert re.fullmatch(r"banditloop \d+\.\d+\S*\n", said)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "arguments",
    [
        ["replay", "--policy", "uniform", "--log", "NAME"],
        ["replay", "--policy", "uniform", "--log", "README.md", "--format", "NAME"],
        ["replay", "--policy", "uniform", "--log", "README.md", "--method", "NAME"],
        [
            "replay",
            "--policy",
            "uniform",
            "--log",
            "log.csv",
            "--format",
            "csv",
            "--columns",
            "{reward: 'NAME'}",
        ],
        ["replay", "--policy", "NAME.yaml", "--log", "log.csv", "--format", "csv"],
        [
            "replay",
            "--policy",
            "uniform",
            "--log",
            "log.csv",
            "--format",
            "csv",
            "--estimator",
            "NAME",
        ],
        ["worlds", "--world", "NAME"],
        ["worlds", "tables", "NAME", "out"],
        ["worlds", "tables", "drift", "out", "--set", "NAME"],
        ["doctor", "home", "--archive", "NAME"],
        ["snapshots", "list", "--data-dir", "NAME"],
        ["snapshots", "show", "3f2a", "--data-dir", "NAME"],
        ["archive", "show", "NAME"],
        ["keys", "revoke", "NAME", "--keys-file", "keys.yaml"],
        ["data", "get", "NAME"],
        ["data", "show", "NAME"],
        ["train", "--data", "NAME"],
        ["train", "policy", "NAME", "--log", "log.csv", "--out", "model"],
        ["serve", "NAME"],
        ["serve", "--keys-file", "NAME"],
        ["NAME"],
        ["doctor", "a", "NAME"],
    ],
    ids=" ".join,
)
def test_what_looks_like_markup_is_printed_as_it_is(arguments, name, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.csv").write_text("id,reward,propensity\n1,1,0.5\n")
    (tmp_path / "README.md").write_text("text\n")
    (tmp_path / "keys.yaml").write_text("{}\n")
    status, said = run(monkeypatch, capsys, *(word.replace("NAME", name) for word in arguments))
    assert status in {1, 2}
    joined = "".join(said.split())
    assert any(
        "".join(form.split()) in joined for form in (name, repr(name)[1:-1], json.dumps(name)[1:-1])
    ), said
    assert "Traceback" not in said


def test_only_one_module_makes_what_prints():
    """Rich reads markup by default; in that module it is off, once."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                off = any(
                    each.arg == "markup" and each.value.value is False for each in node.keywords
                )
                assert off or name not in {"Console", "TextColumn"}, f"{path}:{node.lineno}"
                assert name not in {"from_markup", "render_markup"}, f"{path}:{node.lineno}"


def shown(table, width: int = 80) -> str:
    out = StringIO()
    Console(file=out, width=width, markup=False, emoji=False, highlight=False).print(table)
    return out.getvalue()


def everything_of(table) -> set[str]:
    """Every word of its heads and cells."""
    words = set()
    for column in table.columns:
        for cell in (column.header, *column.cells):
            words.update(str(getattr(cell, "plain", cell)).split())
    return words


def tables_of(monkeypatch, *arguments: str):
    """What a command prints, before it is printed."""
    made = []
    monkeypatch.setattr(
        terminal, "output", SimpleNamespace(print=lambda shown, **_: made.append(shown))
    )
    monkeypatch.setattr("sys.argv", ["banditloop", *arguments])
    cli.app(standalone_mode=False)
    return [each for each in made if isinstance(each, Table)]


def replay_of(folder: Path) -> list[str]:
    """A replay whose numbers are long, and whose names look like markup."""
    table = folder / "[b] :id:.csv"
    table.write_text("action,probability\n[a],0.1\n:id:,0.8\n[/],0.1\n")
    rows = []
    for n in range(300):
        shown, propensity = ("[a]", 0.512345) if n % 3 else (":id:", 0.112345)
        rows.append(f"{n},{shown},[a]|:id:|[/],{propensity},{n % 7 / 1e5}")
    (folder / "log.csv").write_text("\n".join(["id,shown,of,p,click", *rows]) + "\n")
    columns = "{event_id: id, action: shown, actions: of, propensity: p, reward: click}"
    policy = f"{{kind: table, name: '[b] :id:', path: '{table}'}}"
    log = ["--log", str(folder / "log.csv"), "--format", "csv", "--columns", columns]
    return ["replay", "--policy", "uniform", "--policy", policy, *log]


FINDING = Finding(
    "derivations", "failure", "[x] is :gone: [/red]", cause="[default: 1]", action="get 'a[train]'"
)


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_table_loses_nothing(width, monkeypatch, tmp_path):
    """At 80 columns heads and percentiles were cut off, and a name in brackets was always lost."""
    service = {
        "requests/s": "1,234",
        "p50/p99 ms": "123.4/1234.5",
        "learned": "1,234,567",
        "snapshot age": "12.3 s",
    }
    rewards = dict.fromkeys(("bandit", "als", "deep", "popular", "uniform", "best"), "0.123")
    small_worlds = [
        "worlds",
        "--world",
        "steady",
        "--policy",
        "ridge-epsilon",
        "--target",
        "uniform",
        "--seeds",
        "2",
        "--rounds",
        "40",
    ]
    tables = [
        *tables_of(monkeypatch, *small_worlds),
        *tables_of(monkeypatch, *replay_of(tmp_path)),
        findings_table(DoctorReport("[x]", False, 1, [FINDING])),
        one_row_table("the service", service),
        one_row_table("rewards", rewards),
    ]
    assert len(tables) >= 8
    assert any("[b] :id:" in shown(each, width) for each in tables)
    for table in tables:
        text = shown(table, width)
        assert all(word in text for word in everything_of(table)), text
        assert max(map(len, text.splitlines())) <= width


def test_a_progress_bar_shows_a_name_as_it_is():
    out = StringIO()
    console = Console(file=out, width=80, markup=False, emoji=False, highlight=False)
    with terminal_progress(console) as bar:
        bar.add_task("[x] :id: [/]", total=1)
    assert "[x] :id: [/]" in out.getvalue()


def terminal_progress(console):
    from rich.progress import Progress  # noqa: PLC0415 - only here

    return Progress(terminal.text_column("{task.description}"), console=console)


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--data", "file"],
        ["train", "--data", "file/below"],
        ["train", "--data", "missing"],
        ["train", "--out", "file"],
        ["train", "--out", "file/below"],
        ["train", "rl", "--out", "file/below"],
        ["train", "policy", "folder", "--log", "file", "--out", "m"],
        ["train", "policy", "spec.yaml", "--log", "folder", "--format", "csv", "--out", "m"],
        ["train", "policy", "spec.yaml", "--log", "file", "--format", "csv", "--out", "missing/m"],
        ["train", "policy", "spec.yaml", "--log", "file", "--format", "csv", "--out", "folder"],
        ["replay", "--policy", "uniform", "--log", "file/below"],
        ["replay", "--policy", "uniform", "--log", "file/below", "--format", "dsjson"],
        ["replay", "--policy", "uniform", "--log", "file/below", "--format", "obd"],
        ["replay", "--policy", "uniform", "--log", "folder", "--format", "csv"],
        ["replay", "--policy", "folder", "--log", "file", "--format", "csv"],
        ["replay", "--policy", "uniform", "--log", "file", "--out", "missing/report.json"],
        ["replay", "--policy", "uniform", "--log", "file", "--html", "folder"],
        ["replay", "--policy", "uniform", "--log", "file", "--best", "file/below"],
        ["replay", "--search", "folder", "--log", "file", "--format", "csv"],
        ["worlds", "--out", "missing/report.json"],
        ["worlds", "tables", "drift", "file"],
        ["worlds", "tables", "drift", "file/below"],
        ["demo", "--out", "folder"],
        ["data", "get", "ml-100k", "--from", "file"],
        ["data", "get", "ml-100k", "--from", "missing"],
        ["data", "show", "file"],
        ["data", "show", "missing"],
        ["keys", "list", "--keys-file", "folder"],
        ["keys", "list", "--keys-file", "file/below"],
        ["keys", "create", "a", "--scope", "rank", "--keys-file", "file/below"],
        ["keys", "create", "a", "--scope", "rank", "--keys-file", "folder"],
        ["serve", "folder"],
        ["serve", "--keys-file", "folder"],
        ["serve", "--data-dir", "file/below"],
        ["serve", "--archive", "file/below"],
        ["serve", "--data-dir", "file"],
        ["archive", "show", "--archive", "file/below"],
        ["archive", "show", "--archive", "file"],
        ["snapshots", "list", "--data-dir", "file"],
        ["snapshots", "list", "--data-dir", "file/below"],
        ["snapshots", "list", "--redis-url", "redis://127.0.0.1:1/0"],
        ["snapshots", "show", "3f", "--redis-url", "redis://127.0.0.1:1/0"],
        ["snapshots", "verify", "--out", "missing/report.json"],
        ["doctor", "--data-dir", "file"],
        ["doctor", "--archive", "file/below"],
        ["doctor", "--salt-file", "folder"],
        ["doctor", "--out", "missing/report.json"],
    ],
    ids=" ".join,
)
def test_what_the_system_refuses_is_one_line_that_names_it(
    arguments, monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BANDITLOOP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "file").write_text("text")
    (tmp_path / "spec.yaml").write_text("name: a\nlearner: {kind: ridge}\n")
    (tmp_path / "folder").mkdir()
    status, said = run(monkeypatch, capsys, *arguments)
    assert status in {1, 2}
    assert "Traceback" not in said
    assert "rrno" not in said
    assert "Error 111" not in said
    wrong = {word.split("/")[0] for word in arguments} & {"file", "folder", "missing"}
    assert any(word in said for word in wrong or {"127.0.0.1:1"})
    if arguments[0] != "doctor":
        assert sum(line.lower().startswith("error") for line in said.splitlines()) == 1


def test_an_errors_message_has_no_number_of_the_systems():
    assert (
        ReplayError(f"log: {OSError(20, 'Not a directory', 'x')}", "log").message
        == "log: Not a directory: 'x'"
    )
    assert plain(OSError(13, "Permission denied", "a/b")) == "a/b: Permission denied"
    assert plain(OSError("what\nelse")) == "what else"


OF_THEIR_OWN = {
    *("artifact", "columns", "data", "users", "items", "events", "sources", "no-prior", "dry-run"),
    *(
        "address",
        "archive",
        "from",
        "log",
        "model",
        "out",
        "policy",
        "port",
        "redis-url",
        "rounds",
        "seed",
        "world",
    ),
    *("gamma", "jobs", "scope", "search", "space", "wait-s", "window"),
}
"""Options whose meaning or default differs between commands; their help says what they do."""


def test_one_thing_has_one_name_and_one_meaning_everywhere():
    """Of all commands: an option of one name has one type and, but for those listed, one help.

    No two names of one.
    """
    found = defaultdict(set)
    for command in LEAVES.values():
        for param in command.params:
            if param.param_type_name == "option" and not param.hidden:
                found[param.opts[0]].add((param.help, param.multiple))
    for option, meanings in found.items():
        assert len(meanings) == 1 or option.removeprefix("--") in OF_THEIR_OWN, (option, meanings)
    assert not {
        "--file",
        "--name",
        "--keys",
        "--folder",
        "--dir",
        "--output",
        "--report",
        "--redis",
        "--data_dir",
    } & set(found)
    for words, command in LEAVES.items():
        names = {opt for param in command.params for opt in param.opts}
        if "--redis-url" in names or words[1] == "archive":
            assert "--data-dir" in names, words
        if words[1] in {"snapshots", "archive", "doctor"}:
            assert "--policy" in names, words
        if words[1:] in {("doctor",), ("replay",), ("worlds",), ("snapshots", "verify")}:
            assert {"--out", "--json"} <= names, words


@pytest.mark.parametrize("words", [("banditloop", "data", "import"), ("banditloop", "train")])
def test_what_the_errors_of_an_import_say_to_write_is_an_option_of_who_imports(words):
    own = {opt for param in COMMANDS[words].params for opt in param.opts}
    said = set()
    for path in (ROOT / "simulator" / "imports").rglob("*.py"):
        said |= set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", path.read_text()))
    assert {"--columns", "--encoding", "--separator"} <= said <= own


@pytest.mark.parametrize(
    "words",
    [words for words in LEAVES if words[1] in {"snapshots", "archive", "doctor"}],
    ids=" ".join,
)
def test_a_policy_is_named_the_same_way_everywhere(words, monkeypatch, capsys, tmp_path):
    """By --policy; and as doctor always took it, wherever nothing else stands there."""
    monkeypatch.chdir(tmp_path)
    needed = (
        ["3f2a"]
        if COMMANDS[words].params
        and any(p.param_type_name == "argument" for p in COMMANDS[words].params)
        else []
    )
    status, said = run(monkeypatch, capsys, *words[1:], *needed, "--policy", "shop")
    assert (status, "--help" in said) == (2 if words[1] == "doctor" else 1, words[1] == "doctor"), (
        said
    )
    if not needed:
        assert run(monkeypatch, capsys, *words[1:], "shop") == (status, said)
        assert (
            "shop and store" in run(monkeypatch, capsys, *words[1:], "shop", "--policy", "store")[1]
        )


def test_the_old_spellings_still_work(monkeypatch, capsys, tmp_path):
    path = str(tmp_path / "keys.yaml")
    status, key = run(
        monkeypatch, capsys, "keys", "create", "shop", "--scope", "rank", "--file", path
    )
    assert status == 0
    assert key.startswith("bl_shop_")
    assert "shop" in run(monkeypatch, capsys, "keys", "list", "--keys-file", path)[1]
    monkeypatch.setenv("BANDITLOOP_KEYS_FILE", path)
    assert "shop" in run(monkeypatch, capsys, "keys", "list")[1]
