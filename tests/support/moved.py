"""Moves changed nothing: every definition of one commit is in another.

    python tests/support/moved.py BEFORE AFTER

A definition is a function, a class or a constant of a module, by its syntax tree. Imports and
docstrings are left out: they name modules, which is what a move changes. Exits 1 and names what
differs.
"""

import ast
import subprocess
import sys
from collections import Counter

PACKAGES = ("bandits", "policies", "serve_app", "simulator")


def git(*arguments: str) -> str:
    """What git answers."""
    command = ["git", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def bare(tree: ast.Module) -> ast.Module:
    """Without imports and docstrings, at any depth."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [each for each in body if not _names_modules(each)]  # type: ignore[attr-defined]
    return tree


def _names_modules(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom) or (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def definitions(commit: str) -> Counter[str]:
    """The syntax trees of all definitions, with how often each occurs."""
    found: Counter[str] = Counter()
    for path in git("ls-tree", "-r", "--name-only", commit, *PACKAGES).split("\n"):
        if path.endswith(".py"):
            tree = bare(ast.parse(git("show", f"{commit}:{path}")))
            found.update(ast.unparse(node) for node in tree.body)
    return found


def main(before: str, after: str) -> int:
    """Print the definitions that only one of the commits has."""
    was, now = definitions(before), definitions(after)
    for sign, more, fewer in ("-", was, now), ("+", now, was):
        for text in more - fewer:
            print(sign, text.split("\n")[0])
    print(f"{sum(was.values())} definitions before, {sum(now.values())} after")
    return was != now


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
