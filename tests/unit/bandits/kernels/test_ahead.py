"""Loops are compiled ahead of their first use: all of them, each after what it needs."""

from importlib import import_module

import numba
from numba.core.dispatcher import Dispatcher

from bandits.kernels import ahead


def test_every_module_with_loops_is_found_with_those_it_needs():
    found = ahead.modules_with_loops()
    assert found["bandits.kernels.records"] == {"bandits.kernels.actions"}
    assert {name.partition(".")[0] for name in found} == {"bandits", "policies", "simulator"}
    for name in found:
        inside = vars(import_module(name)).values()
        assert any(isinstance(each, Dispatcher) and each.signatures for each in inside), name


def test_whether_they_are_compiled_is_seen_where_numba_keeps_them(monkeypatch, tmp_path):
    import_module("bandits.kernels.actions")
    assert ahead.are_compiled()
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert not ahead.are_compiled()


def test_a_module_is_compiled_after_what_it_imports(monkeypatch):
    monkeypatch.setattr(ahead, "modules_with_loops", lambda: {"json": {"string"}, "string": set()})
    assert list(ahead.compile_all(2)) == ["string", "json"]
