"""The client is a distribution of its own: it needs httpx and msgspec alone."""

import ast
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import banditloop_client
import serve_app.client
from banditloop_client import schemas
from bandits import values
from policies import requests

CLIENT = Path(banditloop_client.__file__).parent
NEEDED = {"httpx", "msgspec"}


@pytest.mark.parametrize("path", sorted(CLIENT.glob("*.py")), ids=lambda path: path.name)
def test_it_imports_the_standard_library_and_two_packages(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level
            names = [str(node.module)]
        else:
            continue
        for name in names:
            top = name.partition(".")[0]
            assert top in {*sys.stdlib_module_names, "banditloop_client", *NEEDED}, name


def test_it_declares_the_two_packages_and_the_version_of_the_service():
    project = tomllib.loads((CLIENT.parent / "pyproject.toml").read_text())["project"]
    service = tomllib.loads((CLIENT.parents[2] / "pyproject.toml").read_text())["project"]
    assert {need.partition(">")[0] for need in project["dependencies"]} == NEEDED
    assert set(project["dependencies"]) <= set(service["dependencies"])
    assert project["version"] == service["version"]


def imported(code: str) -> set[str]:
    """The packages that a fresh Python has loaded after some code, the standard library's aside."""
    code += "; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split()) - set(sys.stdlib_module_names)


def test_a_shops_web_process_that_imports_it_gets_nothing_heavy():
    """Neither numpy, numba nor a learner: what httpx and msgspec load, and the client."""
    own = {"banditloop_client", "serve_app"}
    code = "from serve_app.client import Client"
    assert imported(code) <= own | imported("import httpx, msgspec")


def test_importing_the_package_or_its_types_does_not_import_httpx():
    for code in (
        "import banditloop_client",
        "import banditloop_client.schemas",
        "import serve_app.client",
    ):
        assert "httpx" not in imported(code)


def test_the_service_uses_the_very_types_of_the_client():
    for name in ("ActionRequest", "EventId", "Item", "RankRequest", "MAX_ACTIONS", "MAX_SLOTS"):
        assert getattr(requests, name) is getattr(schemas, name)
    assert schemas.FeatureMap == values.FeatureMap
    assert schemas.Value == values.Value
    assert schemas.MAX_EVENT_ID_BYTES == values.MAX_EVENT_ID_BYTES


@pytest.mark.parametrize("module", [banditloop_client, serve_app.client])
def test_every_exported_name_exists_and_says_what_it_is(module):
    for name in module.__all__:
        exported = getattr(module, name)
        assert exported.__name__ == name
        assert inspect.getdoc(exported), name
        if module is banditloop_client:
            assert f"``{name}``" in module.__doc__
            assert getattr(serve_app.client, name) is exported
    with pytest.raises(AttributeError):
        _ = module.Nothing
