"""The code blocks of README.md and docs/*.md: what each is, and which of them cannot be run in a test."""

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# By page and by how a block begins. What is listed is parsed all the same: see test_docs_blocks.py.
NOT_RUN = {
    ("README.md", "request →"): "a picture",
    (
        "README.md",
        "make demo",
    ): "what CI does besides: the demo has a test, and make test runs this one",
    ("README.md", "make check"): "what CI does besides, and what takes hours",
    ("archive.md", "<root>/"): "names of files",
    (
        "archive.md",
        "-- DuckDB",
    ): "DuckDB is not installed for the tests; the same files are read with pyarrow beside it",
    ("learners.md", "python -m benchmarks."): "a benchmark: minutes",
    ("operations.md", "ray get-auth-token"): "starts machines at AWS",
    (
        "operations.md",
        "banditloop replay --address",
    ): "needs a Ray cluster and a bucket: tests/cluster has the cluster",
    (
        "operations.md",
        "cp backup.rdb",
    ): "a server that stays in the foreground, on a file of the same server's version",
    (
        "operations.md",
        'redis-cli -u "$BANDITLOOP_REDIS_URL" --rdb',
    ): "half of it needs a bucket at AWS",
    ("performance.md", "python -m benchmarks."): "a benchmark: minutes",
    (
        "replay.md",
        "banditloop replay --search",
    ): "a search on a Ray of its own: tests/e2e/test_replay_on_ray.py has one",
    ("security.md", "shop: {hash"): "a file with the hash left out",
    (
        "sessions.md",
        "banditloop train rl",
    ): "trains for minutes: tests/integration/test_rl_training.py has all its steps",
    ("sessions.md", "python -m benchmarks."): "a benchmark: minutes",
    ("sessions.md", "# policy.yaml"): "a file with the digest left out",
    ("sessions.md", "kind: mixture"): "a part of a file, with the digest left out",
    ("sources.md", "python -m benchmarks."): "a benchmark: minutes",
    ("sources.md", "pip install"): "installs packages",
    ("worlds.md", "banditloop worlds --seeds 20"): "minutes",
}


@dataclass(frozen=True)
class Block:
    """``kind``: python, shell, yaml, sql or text. ``line``: where its first line is."""

    page: str
    line: int
    kind: str
    text: str

    @property
    def not_run(self) -> str | None:
        """Why it is not run, if it is not."""
        found = [
            why
            for (page, start), why in NOT_RUN.items()
            if page == self.page and self.text.startswith(start)
        ]
        return found[0] if found else None

    def commands(self) -> list[str]:
        """Lines of a shell, each whole and without its comment."""
        joined = self.text.replace("\\\n", " ")
        if re.search(r"-d '\{$", joined, re.MULTILINE):  # a body over several lines
            joined = re.sub(
                r"'\{\n.*?\}'", lambda body: body[0].replace("\n", " "), joined, flags=re.DOTALL
            )
        return [
            line
            for line in joined.splitlines()
            if line.strip() and not line.lstrip().startswith("#")
        ]


def blocks() -> list[Block]:
    """All of them, in their order."""
    return [block for page in PAGES for block in _of(page)]


def _of(page: Path) -> Iterator[Block]:
    lines = [*page.read_text().splitlines(), ""]
    at = 0
    while at < len(lines):
        if lines[at].startswith("```"):
            end = lines.index("```", at + 1)
            yield _block(page, at + 2, lines[at].strip("` "), lines[at + 1 : end])
            at = end + 1
        elif lines[at].startswith("    ") and not lines[at - 1].strip():
            end = (
                next(
                    n
                    for n in range(at, len(lines))
                    if lines[n].strip() and not lines[n].startswith("    ")
                )
                if any(line.strip() and not line.startswith("    ") for line in lines[at:])
                else len(lines)
            )
            yield _block(page, at + 1, "", [line[4:] for line in lines[at:end]])
            at = end
        else:
            at += 1


def _block(page: Path, line: int, kind: str, lines: list[str]) -> Block:
    text = "\n".join(lines).strip("\n")
    return Block(page.name, line, kind or _kind(text), text)


def _kind(text: str) -> str:
    first = text.split(maxsplit=1)[0]
    if first in {"request", "<root>/<policy>/date=2026-03-01/hour=17/<first"}:
        return "text"
    if re.match(r"(# \w+\.yaml|[a-z]+:( |$))", text):
        return "yaml"
    try:
        ast.parse(text)
    except SyntaxError:
        return "shell"
    return "python"


def words_of(command: str) -> list[str]:
    """The words of a command line before a comment, a pipe or an &."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|&;")
    lexer.whitespace_split = True
    words = []
    for word in lexer:
        if set(word) <= set("|&;"):
            break
        words.append(word)
    return words
