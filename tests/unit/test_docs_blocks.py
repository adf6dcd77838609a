"""Every code block of the documentation parses, and what it names is there.

Tests/e2e/test_docs.py runs them.
"""

import ast
import shutil
import subprocess

import pytest
import typer
import yaml
from support.docs_blocks import NOT_RUN, ROOT, Block, blocks, words_of

from serve_app.cli import main as cli

BASH = shutil.which("bash")
BLOCKS = blocks()
IDS = [f"{block.page}:{block.line}" for block in BLOCKS]


def lines(kind: str, start: str) -> list:
    """Commands of the blocks that begin with these words, each with where it is."""
    return [
        pytest.param(words_of(line), id=f"{block.page}:{block.line}: {line[:60].strip()}")
        for block in BLOCKS
        if block.kind == kind
        for line in block.commands()
        if [
            word.rpartition("/")[2] if word.startswith(".venv") else word for word in words_of(line)
        ][: len(start.split())]
        == start.split()
    ]


def test_there_are_blocks_of_every_kind():
    kinds = {
        kind: sum(block.kind == kind for block in BLOCKS)
        for kind in ("python", "shell", "yaml", "sql", "text")
    }
    assert sum(kinds.values()) == len(BLOCKS)
    assert kinds["shell"] > 20
    assert kinds["python"] >= 6
    assert sum(block.not_run is None for block in BLOCKS) >= 14
    assert {block.page for block in BLOCKS} >= {
        "README.md",
        "replay.md",
        "exact.md",
        "doctor.md",
        "worlds.md",
    }


def test_what_is_listed_as_not_run_is_there():
    for page, start in NOT_RUN:
        assert any(block.page == page and block.text.startswith(start) for block in BLOCKS), (
            page,
            start,
        )


@pytest.mark.parametrize("block", BLOCKS, ids=IDS)
def test_a_block_parses(block: Block):
    if block.kind == "python":
        ast.parse(block.text)
    elif block.kind == "yaml":
        assert isinstance(yaml.safe_load(block.text), dict)
    elif block.kind == "shell":
        done = subprocess.run(
            [BASH, "-n"], input=_shell(block), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    else:
        assert block.not_run is not None


def _shell(block: Block) -> str:
    """Its commands; below a search there is the file that it reads."""
    text, _, below = block.text.partition("\n# space.yaml")
    if below:
        assert {"spec", "trials", "vary"} <= set(yaml.safe_load(below))
    return text.replace("(about", "# (about").replace("(nine", "# (nine")


@pytest.mark.parametrize("words", lines("shell", "banditloop"))
def test_a_command_of_ours_has_the_options_that_it_is_given(words):
    command, rest = typer.main.get_command(cli.with_all_commands()), words[1:]
    while rest and rest[0] in getattr(command, "commands", {}):
        command, rest = command.commands[rest[0]], rest[1:]
    command.make_context("banditloop", rest)  # parses, and does nothing


@pytest.mark.parametrize("words", lines("shell", "python"))
def test_a_script_is_there_and_has_the_options_that_it_is_given(words):
    # Either a file, or a module: python -m benchmarks.serving.cost
    module = words[1] == "-m"
    path = words[2].replace(".", "/") + ".py" if module else words[1]
    source = (ROOT / path).read_text()

    for word in words[3 if module else 2 :]:
        if word.startswith("--"):
            assert f'"{word}"' in source, word


@pytest.mark.parametrize("words", lines("shell", "make"))
def test_a_target_of_make_is_there(words):
    assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text()
