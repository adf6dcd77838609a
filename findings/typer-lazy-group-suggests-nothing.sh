#!/usr/bin/env bash
# typer 0.29.2: a group that loads its commands on demand, as click's documentation shows, suggests nothing for a typo.
#
# click's pattern for lazy subcommands overrides `list_commands` and `get_command` of a Group. With it --help lists all
# commands and each of them runs. But Typer's "Did you mean ...?" looks at the keys of the group's `commands` mapping
# alone, which such a group leaves empty: a mistyped command gets "No such command" and no suggestion.
# What to do instead: give the group a Mapping as `commands` whose keys are all names and whose values load when read.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check typer==0.29.2

"$work/env/bin/python" - <<'PYTHON'
from collections.abc import Iterator, MutableMapping

import typer
from typer.core import TyperCommand, TyperGroup
from typer.testing import CliRunner

NAMES = ["serve", "replay"]


def load(name: str) -> TyperCommand:
    return TyperCommand(name, callback=lambda: print(f"this is {name}"))


class ByMethods(TyperGroup):
    """As click's documentation has it."""

    def list_commands(self, ctx):
        return NAMES

    def get_command(self, ctx, name):
        return load(name) if name in NAMES else None


class Loaded(MutableMapping):
    def __getitem__(self, name: str) -> TyperCommand:
        if name in NAMES:
            return load(name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)

    def __setitem__(self, name, value) -> None:
        raise NotImplementedError

    def __delitem__(self, name) -> None:
        raise NotImplementedError


class ByMapping(TyperGroup):
    def __init__(self, **attrs) -> None:
        super().__init__(**attrs)
        self.commands = Loaded()


seen = {}
for group in (ByMethods, ByMapping):
    app = typer.Typer(cls=group)

    @app.callback()
    def root() -> None: ...

    def invoke(word: str) -> str:
        return CliRunner().invoke(app, [word]).output

    assert "this is replay" in invoke("replay")
    assert all(name in invoke("--help") for name in NAMES)
    seen[group.__name__] = "Did you mean" in invoke("reply")
    print(f"{group.__name__}: suggests for a typo: {seen[group.__name__]}")
assert seen == {"ByMethods": False, "ByMapping": True}
PYTHON
echo "as described"
