"""Compile all loops of the project ahead of their first use, several at a time.

    python -m bandits.kernels.ahead

A module's loops are compiled when it is first imported, a minute of processor in all. Processes
that start together, such as those of a test run, would each compile the same.
"""

import ast
import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("bandits", "policies", "simulator", "serve_app")
MARK = "@compiled("
"""What stands above a loop."""


def modules_with_loops() -> Mapping[str, set[str]]:
    """Return the modules that have loops, each with those of them that it imports itself."""
    files = {name: path for package in PACKAGES for name, path in _files(ROOT / package)}
    texts = {name: path.read_text() for name, path in files.items()}
    loops = {name: text for name, text in texts.items() if f"\n{MARK}" in text}
    return {name: _imported(text) & loops.keys() for name, text in loops.items()}


def compile_all(processes: int) -> Iterator[str]:
    """Import the modules that have loops, in processes of their own; yield the name of each.

    Args:
        processes: how many at a time.
    """
    order = TopologicalSorter(modules_with_loops())
    order.prepare()
    context = multiprocessing.get_context("spawn")
    # Each module in a fresh process: what it imports is read from disk, and was compiled before.
    with ProcessPoolExecutor(processes, context, max_tasks_per_child=1) as pool:
        running = dict[Future[None], str]()
        while order.is_active():
            running |= {pool.submit(_load, name): name for name in order.get_ready()}
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(done)
                order.done(name)
                yield name


def _load(name: str) -> None:
    import_module(name)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*.py")):
        yield ".".join(path.relative_to(ROOT).with_suffix("").parts), path


def _imported(text: str) -> set[str]:
    return {
        node.module
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.module
    }


def main() -> int:
    """Compile with all processors, and say so."""
    for name in compile_all(os.cpu_count() or 1):
        sys.stderr.write(f"compiled: {name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
