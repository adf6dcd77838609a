"""The code blocks of the documentation: what each is, and which cannot be run in a test."""

import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]

# By page, or the folder of pages, and by how a block begins. Listed blocks are parsed all the same.
NOT_RUN = {
    ("README.md", "python3 -m venv"): "installs packages",
    (
        "README.md",
        ".venv/bin/pip install -c constraints.txt '.[train]'",
    ): "installs packages: tests/e2e/test_own_data.py runs both commands",
    ("README.md", "make demo"): "what CI does besides: the demo has a test of its own",
    ("CONTRIBUTING.md", "make"): "what CI does besides, and what takes hours",
    ("benchmarks/", ""): "a benchmark: minutes",
    (
        "how-to/choose-sources.md",
        "banditloop",
    ): "networks: minutes; tests/integration/test_train_command.py fits, searches and resumes small ones",
    ("tutorials/first-model.md", "python3 -m venv"): "installs packages",
    ("tutorials/first-model.md", "kill"): "ends the service that the other blocks need",
    ("tutorials/recommend-films.md", ".venv/bin/pip"): "installs packages",
    (
        "how-to/evaluate-sources.md",
        "banditloop evaluate --data shop/data --artifact",
    ): "needs an artifact of the earlier part: tests/unit/simulator/ranking has one",
    (
        "how-to/come-from-personalizer.md",
        "banditloop",
    ): "needs an export of somebody's loop: tests/unit/serve_app/cli/test_migrate.py makes one",
    ("tutorials/your-own-tables.md", "pip install"): "installs packages",
    ("how-to/call-the-api.md", "pip install"): "installs packages",
    (
        "how-to/call-from-a-web-page.md",
        "banditloop keys",
    ): "a service on the internet: tests/integration/test_browser_client.py has the page",
    (
        "how-to/change-while-serving.md",
        "banditloop serve",
    ): "changes the service that the other blocks need: tests/e2e/test_service.py applies specs",
    ("how-to/back-up-and-restore.md", "redis-cli"): "half of it needs a bucket at AWS",
    (
        "how-to/back-up-and-restore.md",
        "cp backup.rdb",
    ): "a server that stays in the foreground, on a file of the same server's version",
    (
        "how-to/back-up-and-restore.md",
        "banditloop users",
    ): "a service with users, or a bucket: tests/integration/test_user_copies.py runs them",
    (
        "how-to/evaluate-a-policy.md",
        "banditloop replay --address",
    ): "needs a Ray cluster and a bucket: tests/cluster has the cluster",
    (
        "how-to/find-a-better-policy.md",
        "banditloop replay --search",
    ): "a search on a Ray of its own: tests/e2e/test_replay_on_ray.py has one",
    (
        "how-to/read-the-archive.md",
        "export AWS",
    ): "needs a bucket: tests/integration/test_object_store.py has a server",
    (
        "how-to/use-your-recommenders.md",
        "banditloop train --events",
    ): "needs the reader's files: tests/e2e/test_own_data.py has some",
    (
        "how-to/refresh.md",
        "banditloop refresh",
    ): "needs a policy with a log of users: tests/integration/test_refresh.py has one",
    (
        "how-to/share-users-and-items.md",
        "banditloop",
    ): "a service of two more policies: tests/integration/test_spaces.py has them",
    (
        "how-to/share-users-and-items.md",
        "curl",
    ): "the same service: tests/integration/test_activity.py",
    (
        "how-to/offer-nothing-twice.md",
        "curl",
    ): "a service with profiles: tests/integration/test_known_users.py",
    (
        "how-to/filter-what-is-offered.md",
        "curl",
    ): "a service of such a policy: tests/unit/policies/rules/test_filters.py",
    (
        "how-to/items.md",
        'curl -s -G "$SHOP',
    ): "a service of a policy with a filter: tests/unit/policies/test_limits.py",
    (
        "how-to/compose-a-page.md",
        "curl",
    ): "a service of such a policy: tests/unit/serve_app/api/test_asgi.py",
    (
        "how-to/explain-a-decision.md",
        "banditloop explain",
    ): "needs a decision's name: tests/integration/test_explain.py has one",
    (
        "how-to/use-pictures.md",
        "curl",
    ): "not all numbers of a vector are written: tests/integration/test_pictures.py has them",
    (
        "how-to/weigh-signals.md",
        "banditloop serve",
    ): "a service of its own: tests/unit/serve_app/api/test_asgi.py, tests/integration/test_relearned.py",
    ("privacy.md", "curl"): "users of a space: tests/integration/test_erasure.py",
    ("how-to/run-on-a-cluster.md", "ray get-auth-token"): "starts machines at AWS",
    ("how-to/watch-a-service.md", ""): "a key of a service of its own: tests/e2e/test_watch.py",
    ("how-to/run-with-docker.md", ""): "needs Docker: make dockerfile runs the image without it",
    (
        "how-to/train-for-sessions.md",
        "banditloop train rl",
    ): "trains for minutes: tests/integration/test_rl_training.py has all its steps",
}
RUNNABLE = {"python", "shell"}
KINDS = RUNNABLE | {"yaml", "sql", "html", "text", "output"}


@dataclass(frozen=True)
class Block:
    """A fenced block.

    ``page`` is relative to docs/, or the name of a page in the root; ``line`` is where the block's
    first line is. ``kind`` is one of KINDS. ``title`` names the file that a reader saves the block
    as. ``output`` is what the page shows as the block's output.
    """

    page: str
    line: int
    kind: str
    text: str
    title: str | None = None
    output: str | None = None

    @property
    def not_run(self) -> str | None:
        """Why it is not run, if it is not."""
        if self.kind not in RUNNABLE:
            return f"{self.kind} is not run"

        reasons = [
            why
            for (page, start), why in NOT_RUN.items()
            if (self.page.startswith(page) if page.endswith("/") else self.page == page)
            and self.text.startswith(start)
        ]
        return reasons[0] if reasons else None

    def commands(self) -> list[str]:
        """Return the commands of a shell, each in one line and without comments between them."""
        commands, pending = [], ""
        for line in self.text.replace("\\\n", " ").splitlines():
            pending = f"{pending} {line}" if pending else line
            if not _is_whole(pending):
                continue
            if pending.strip() and not pending.lstrip().startswith("#"):
                commands.append(pending)
            pending = ""
        return commands


def _is_whole(command: str) -> bool:
    """Say whether every quotation of a command ends."""
    try:
        words_of(command)
    except ValueError:
        return False
    return True


def name_of(page: Path) -> str:
    """Return a page's name: relative to docs/, or to the root for a page that is there."""
    return str(page.relative_to(DOCS if page.is_relative_to(DOCS) else ROOT))


def blocks() -> list[Block]:
    """Return the blocks of all pages in their order; an output belongs to the block above it."""
    return [block for page in PAGES for block in _with_outputs(list(_fenced(page)))]


def _with_outputs(of_page: list[Block]) -> Iterator[Block]:
    """Yield the blocks of a page, each with the output that follows it."""
    for block, following in itertools.zip_longest(of_page, of_page[1:]):
        shown = following.text if following is not None and following.kind == "output" else None
        yield replace(block, output=shown)


def _fenced(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    lines = page.read_text().splitlines()
    at = 0
    while at < len(lines):
        if not lines[at].startswith("```"):
            at += 1
            continue

        end = lines.index("```", at + 1)
        kind, _, rest = lines[at].removeprefix("```").partition(" ")
        title = re.search(r'title="([^"]+)"', rest)
        name = title[1] if title else None
        if name == "Output":
            kind, name = "output", None

        text = "\n".join(lines[at + 1 : end]).strip("\n")
        yield Block(name_of(page), at + 2, kind, text, name)
        at = end + 1


def indented(page: Path) -> list[int]:
    """Return the lines of a page at which indented code begins, which nobody would run."""
    outside, fenced = [], False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.startswith("```"):
            fenced = not fenced
        outside.append((number, "```" if fenced or line.startswith("```") else line))

    return [
        number
        for (_, before), (number, line) in itertools.pairwise(outside)
        if line.startswith("    ") and not before.strip()
    ]


def words_of(command: str) -> list[str]:
    """Return the words of a command line before a comment, a pipe or an &."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|&;")
    lexer.whitespace_split = True
    words = list(lexer)
    ends = [at for at, word in enumerate(words) if set(word) <= set("|&;")]
    return words[: min(ends, default=len(words))]


PLACEHOLDERS = [
    (r"\b[0-9a-f]{12,32}\b", r"[0-9a-f]{12,32}"),
    (r"\b(?:reliable|weak|unreliable)\b", r"(?:reliable|weak|unreliable)"),
    (r"\d{4}-\d\d-\d\d [\d:.]+", r"\d{4}-\d\d-\d\d [\d:.]+"),
    (r"[+-]?\d[\d.,]*(?:e-?\d+)?", r"[+-]?\d[\d.,]*(?:e-?\d+)?"),
    ("…", ".*"),
    (r"\s+", r"\s+"),
]
"""What differs between two runs: ids, verdicts, times, numbers; … stands for anything."""
DIFFERS = re.compile("|".join(f"({differs})" for differs, _ in PLACEHOLDERS))


def missing_lines(shown: str, printed: str) -> list[str]:
    """Return the lines of an output as a page shows it that were not printed, in this order."""
    position, missing = 0, []
    for line in shown.splitlines():
        if line.strip() in {"", "…"}:
            continue
        match = re.compile(_pattern(line.strip())).search(printed, position)
        if match is None:
            missing.append(line)
        else:
            position = match.end()
    return missing


def _pattern(line: str) -> str:
    """Return a regular expression of a line, with placeholders for what differs between runs."""
    pattern, end = "", 0
    for match in DIFFERS.finditer(line):
        pattern += re.escape(line[end : match.start()]) + PLACEHOLDERS[match.lastindex - 1][1]
        end = match.end()
    return pattern + re.escape(line[end:])
