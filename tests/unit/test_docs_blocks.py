"""Every code block of the documentation parses, and what it names is there.

tests/e2e/test_docs.py runs them.
"""

import ast
import shutil
import subprocess

import pytest
import typer
import yaml
from support.docs_blocks import (
    KINDS,
    NOT_RUN,
    PAGES,
    ROOT,
    Block,
    blocks,
    indented,
    missing_lines,
    name_of,
    words_of,
)

from policies.spec import spec_of
from serve_app.cli import main as cli

BASH = shutil.which("bash")
BLOCKS = blocks()
IDS = [f"{block.page}:{block.line}" for block in BLOCKS]
FILES = {block.title for block in BLOCKS if block.title is not None}
"""Files that a reader saves."""


def lines(kind: str, start: str) -> list:
    """Return the commands that begin with these words, each with where it is."""
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
    kinds = {kind: sum(block.kind == kind for block in BLOCKS) for kind in KINDS}
    assert sum(kinds.values()) == len(BLOCKS)
    assert kinds["shell"] > 30
    assert kinds["python"] >= 6
    assert kinds["output"] >= 8


def test_every_tutorial_and_guide_has_blocks_that_run():
    """Or a reason, listed by page, why not."""
    run = {block.page for block in BLOCKS if block.not_run is None}
    reasons = {page for page, _ in NOT_RUN}
    without_commands = {
        "how-to/change-while-serving.md",
        "how-to/repair-learning.md",
        "how-to/plan-capacity.md",
        "how-to/choose-a-learner.md",
        "how-to/secure.md",
        "how-to/push-what-you-want-shown.md",
        "how-to/hold-shares.md",
        "how-to/learn-from-lists.md",
        "how-to/place-an-item.md",
    }
    pages = {name_of(page) for page in PAGES}
    lessons = {page for page in pages if page.startswith(("tutorials/", "how-to/"))}
    assert lessons - run - reasons - without_commands == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_is_fenced_because_indented_code_is_not_run(page):
    assert indented(page) == []


def test_what_is_listed_as_not_run_is_there():
    for page, start in NOT_RUN:
        assert any(
            (block.page.startswith(page) if page.endswith("/") else block.page == page)
            and block.text.startswith(start)
            for block in BLOCKS
        ), (page, start)


@pytest.mark.parametrize("block", BLOCKS, ids=IDS)
def test_a_block_parses(block: Block):
    if block.kind == "python":
        ast.parse(block.text)
    elif block.kind == "yaml":
        assert isinstance(yaml.safe_load(block.text), dict)
    elif block.kind == "shell":
        done = subprocess.run(
            [BASH, "-n"], input=block.text, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, id=f"{block.page}:{block.line}")
        for block in BLOCKS
        if block.kind == "yaml" and "name" in yaml.safe_load(block.text) and "…" not in block.text
    ],
)
def test_a_policy_is_one_that_the_service_takes(block: Block):
    spec_of(yaml.safe_load(block.text))


@pytest.mark.parametrize("words", lines("shell", "banditloop"))
def test_a_command_of_ours_has_the_options_that_it_is_given(words):
    command, rest = typer.main.get_command(cli.app), words[1:]
    while rest and rest[0] in getattr(command, "commands", {}):
        command, rest = command.commands[rest[0]], rest[1:]
    command.make_context("banditloop", rest)  # parses, and does nothing


@pytest.mark.parametrize("words", lines("shell", "python"))
def test_a_script_is_there_and_has_the_options_that_it_is_given(words):
    if words[1] in FILES:
        return

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


def test_an_output_is_compared_except_for_what_differs_between_runs():
    shown = 'snapshot 3f2a00000000 size 1,234\n…\n{"id":"…","p":0.5} weak'
    printed = 'snapshot 9b2c11111111  size 77\nmore\n{"id":"news","p":0.25} reliable'
    assert missing_lines(shown, printed) == []
    assert missing_lines("size 3", "weight 3") == ["size 3"]
    assert missing_lines("first\nsecond", "second\nfirst") == ["second"]
