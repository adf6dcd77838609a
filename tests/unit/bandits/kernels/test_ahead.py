"""Loops are compiled ahead of their first use: all of them, each after what it needs."""

import os
import subprocess
import sys
from importlib import import_module

from numba.core.dispatcher import Dispatcher

from bandits.kernels import ahead


def test_every_module_with_loops_is_found_with_those_it_needs():
    found = ahead.modules_with_loops()
    assert found["bandits.kernels.records"] == {"bandits.kernels.actions"}
    assert {name.partition(".")[0] for name in found} == {"bandits", "policies", "simulator"}
    for name in found:
        inside = vars(import_module(name)).values()
        assert any(isinstance(each, Dispatcher) and each.signatures for each in inside), name


def test_a_module_is_compiled_after_what_it_imports(monkeypatch):
    monkeypatch.setattr(ahead, "modules_with_loops", lambda: {"json": {"string"}, "string": set()})
    assert list(ahead.compile_all(2)) == ["string", "json"]


TELLS = """
from bandits.compiling import tell_once
tell_once(lambda: print("compiles"))
from bandits.kernels.compiled import compiled, i8
@compiled(i8, returns=i8)
def one(n):
    return n + 1
@compiled(i8, returns=i8)
def two(n):
    return n + 2
"""


def test_who_waits_for_a_loop_to_be_compiled_is_told_once_and_not_where_it_was_before(tmp_path):
    script = tmp_path / "loops.py"
    script.write_text(TELLS)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    said = [
        subprocess.check_output([sys.executable, script], env=environment, text=True)
        for _ in range(2)
    ]
    assert said == ["compiles\n", ""]
