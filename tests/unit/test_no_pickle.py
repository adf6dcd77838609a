"""Bytes that cross a process or a disk are never unpickled by this project: loading them could run anything."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("bandits", "policies", "serve_app", "simulator", "benchmarks", "tests")
FORBIDDEN = {
    "pickle",
    "cPickle",
    "_pickle",
    "cloudpickle",
    "dill",
    "joblib",
    "shelve",
    "marshal",
    "pandas",
}
IN_ANOTHER_ENVIRONMENT = {"benchmarks/sources/family_peers_worker.py": {"pandas"}}
"""Of libraries that a benchmark compares with, which take nothing but frames of pandas."""
LOADERS = {
    "torch.load",
    "torch.save",
    "np.save",
    "numpy.save",
    "np.load",
    "numpy.load",
    "yaml.load",
}
CALLS = {"eval", "exec", "yaml.unsafe_load", "yaml.full_load", "np.fromregex"}


def offences(source: str) -> Iterator[str]:
    """What of a module's text could unpickle."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [str(node.module)]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in LOADERS | CALLS or called.rpartition(".")[2] in {
                "read_pickle",
                "to_pickle",
                "unsafe_load",
            }:
                yield f"{node.lineno}: {called}"
            if any(
                k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords
            ):
                yield f"{node.lineno}: allow_pickle"
            continue
        else:
            continue
        for name in names:
            if name in LOADERS | CALLS or FORBIDDEN.intersection(name.split(".")):
                yield f"{node.lineno}: {name}"


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_here_unpickles(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    found = {str(path.relative_to(ROOT)): list(offences(path.read_text())) for path in files}
    for path, allowed in IN_ANOTHER_ENVIRONMENT.items():
        lines = found.get(path, [])
        found[path] = [line for line in lines if line.partition(": ")[2] not in allowed]
    assert not {path: lines for path, lines in found.items() if lines}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "from ray import cloudpickle",
        "import ray.cloudpickle",
        "def f():\n    import joblib",
        "from torch import load",
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path)",
        "x.f(allow_pickle=flag)",
        "yaml.load(text, Loader)",
        "pd.read_pickle(path)",
        "exec(text)",
    ],
)
def test_the_search_finds_what_it_looks_for(source):
    assert list(offences(source))
