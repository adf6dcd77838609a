"""The client, installed from the repository where nothing else of the project is."""

import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import importlib.util, sys
from pathlib import Path
from banditloop_client import Client, RewardEvent, ServiceError

assert Path(importlib.util.find_spec("banditloop_client").origin).is_relative_to({environment!r})
assert importlib.util.find_spec("serve_app") is None
try:
    Client("http://127.0.0.1:9", retries=0).rewards([RewardEvent("e", 1.0, "r")])
except ServiceError as error:
    print(error.service_code)
"""


def test_it_installs_with_pip_and_works_without_the_service(tmp_path):
    """Httpx and msgspec are those of the running Python; its other packages are seen, but not a clone."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(environment)]
    # From a copy, so that the build leaves nothing in the clone.
    copy = shutil.copytree(ROOT / "clients" / "python", tmp_path / "python")
    install = [*pip, "install", "-q", "--no-deps", str(copy)]
    subprocess.run(install, cwd=tmp_path, check=True, timeout=200)

    # A folder that a .pth file names comes last, and the .pth files in it do not count.
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    done = subprocess.run(
        [str(environment / "bin" / "python"), "-c", SCRIPT.format(environment=str(environment))],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={},
    )
    assert done.stdout.split() == ["unreachable"]
