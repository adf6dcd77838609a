"""What packages export: every name exists, says what it is, and costs nothing until it is used."""

import ast
import inspect
import subprocess
import sys
from importlib import import_module

import pytest

PACKAGES = ["bandits", "policies", "simulator"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_exported_name_exists_and_says_what_it_is(package):
    module = import_module(package)
    assert sorted(module.__all__) == dir(module)
    for name in module.__all__:
        exported = getattr(module, name)
        assert exported.__name__ == name
        assert inspect.getdoc(exported), name
        assert f"``{name}``" in module.__doc__, name


@pytest.mark.parametrize("package", PACKAGES)
def test_type_checkers_see_the_names_that_programs_get(package):
    """Each is imported for type checkers from the module that a program gets it from."""
    module = import_module(package)
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ImportFrom) and node.module not in {"typing", "bandits.lazy"}:
            for alias in node.names:
                assert getattr(module, alias.name) is getattr(
                    import_module(str(node.module)), alias.name
                )


@pytest.mark.parametrize("package", PACKAGES)
def test_a_name_that_is_not_exported_is_no_attribute(package):
    with pytest.raises(AttributeError, match="'Nothing'"):
        _ = import_module(package).Nothing


def test_importing_the_packages_imports_nothing_heavy():
    command = [sys.executable, "-X", "importtime", "-c", f"import {', '.join(PACKAGES)}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert set(PACKAGES) < imported
    own = {name for name in imported if name.partition(".")[0] in PACKAGES}
    assert own == {*PACKAGES, "bandits.lazy"}
    assert not imported & {"numpy", "numba", "msgspec", "vowpal_wabbit_next", "pyarrow", "ray"}
