"""Ray without what nobody asks: what of Ray it stands on, and what it leaves as it was."""

import importlib
import inspect
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import pytest

from serve_app.host import lean_ray as module
from serve_app.host.environment import ONE_MACHINE
from serve_app.host.forking import client
from serve_app.host.lean_ray import (
    AGENTS,
    PORTS,
    SWITCH,
    RestingSystem,
    environment_of_commands,
    forks_for_ray,
    lean_command,
    lean_ray,
    pandas_hidden,
    why_not_lean,
)
from serve_app.settings import Settings

ray = pytest.importorskip("ray")
node = pytest.importorskip("ray._private.node")
constants = pytest.importorskip("ray._private.ray_constants")
services = pytest.importorskip("ray._private.services")
raylet = pytest.importorskip("ray._raylet")
NODE_ID = "ab" * 28


def test_ray_is_the_one_whose_private_parts_are_known():
    """Another version fails here first: read node.py and services.py of it, then say so in lean_ray.py."""
    assert ray.__version__.startswith(module.RAY)
    assert why_not_lean() is None


def test_ray_still_has_what_is_replaced():
    source = inspect.getsource(services.start_raylet)
    assert all(f'"{option}{{}}".format(' in source for option in AGENTS)
    assert "process_info = start_ray_process(" in source
    assert all(f'f"--{name}={{' in source for name in ("session_dir", "node_id"))
    assert all(isinstance(getattr(raylet, name), (str, bytes)) for name in PORTS)
    assert "--python_worker_command={subprocess.list2cmdline(start_worker_command)}" in source
    assert "            sys.executable,\n            setup_worker_path," in source
    assert constants.SETUP_WORKER_FILENAME == module.SETUP_WORKER
    assert callable(raylet.Config.initialize)
    whole = inspect.getsource(node.Node)
    for name in ("start_api_server", "start_monitor", "start_log_monitor"):
        assert f"self.{name}(" in whole


def test_a_raylet_gets_agents_that_do_nothing_and_the_ports_of_none(tmp_path):
    given = ["raylet", f"--session_dir={tmp_path}", f"--node_id={NODE_ID}", "--head"]
    command = lean_command([*given, *(f"{option}python agent.py" for option in AGENTS)], "raylet")
    assert Path(command[0]).name == "setsid"
    assert command[1 : 1 + len(given)] == given
    agents = [part.partition("=") for part in command[1 + len(given) :]]
    assert [name + "=" for name, _, _ in agents] == list(AGENTS)
    assert len(list(tmp_path.glob(f"*_{NODE_ID}"))) == len(PORTS)

    # It goes on as long as whoever started it.
    starter = subprocess.Popen(
        [sys.executable, "-c", START, agents[0][2]], stdout=subprocess.PIPE, text=True
    )
    pid = int(starter.stdout.readline())
    os.kill(pid, 0)
    starter.communicate()


START = """
import subprocess, sys
agent = subprocess.Popen(sys.argv[1])
print(agent.pid, flush=True)
try:
    print(agent.wait(0.5))
except subprocess.TimeoutExpired:
    agent.kill()
"""


def test_a_raylet_asks_the_fork_server_for_python(tmp_path):
    python = f"{sys.executable} /ray/setup_worker.py /ray/default_worker.py --node-id=1 PLACE"
    given = [f"--session_dir={tmp_path}", f"--node_id={NODE_ID}"]
    told = [*given, f"--python_worker_command={python}", "--java_worker_command=java"]
    *_, worker, java = lean_command(told, "raylet", "name")
    option, *words = worker.split(" ")
    assert option == f"--python_worker_command={sys.executable}"
    assert words == [
        *("/ray/setup_worker.py", "-I", "-S", client.__file__, "name"),
        *("/ray/default_worker.py", "--node-id=1", "PLACE"),
    ]
    assert java == "--java_worker_command=java"
    assert lean_command(told, "raylet")[-2] == f"--python_worker_command={python}"


def test_a_command_forks_a_server_that_has_imported_all_but_pandas(tmp_path):
    """It is left as it was, whatever Ray's compiled part has to read once.

    Forks draw ids of their own, in whichever thread.
    """
    environment = {**os.environ, **ONE_MACHINE, "RAY_JOB_ID": "before"}
    command = [sys.executable, "-c", COMMAND, str(tmp_path)]
    said = subprocess.check_output(command, env=environment, text=True)
    assert said.splitlines()[:4] == ["True", "before", module.ABSENT, "3"]
    ids = said.splitlines()[4:]
    assert len(ids) == len(set(ids)) == 12


def test_who_looks_for_pandas_finds_it_again_once_it_is_no_longer_hidden(monkeypatch):
    """What was imported of it stays out of this test: it is not asked for by whoever hides it."""
    monkeypatch.delitem(sys.modules, "pandas", raising=False)
    looked_at = list(sys.meta_path)
    with pandas_hidden(), pytest.raises(ImportError, match="needs pandas"):
        importlib.import_module("pandas")
    assert sys.meta_path == looked_at


COMMAND = """
import os, sys, threading
from pathlib import Path
from serve_app.host.lean_ray import PRELOADED, _read_environment_again, forks_for_ray
from serve_app.settings import Settings
with forks_for_ray(Settings(data_dir=Path(sys.argv[1]))) as forks:
    print(forks is not None and sys.modules.keys() >= set(PRELOADED))
    print(os.environ["RAY_JOB_ID"])
    try:
        import pandas
    except ImportError as error:
        print(error)
    import pyarrow
    from ray import _raylet
    print(len(pyarrow.array([1, 2, 3])))  # looks for pandas
    sys.stdout.flush()
    for _ in range(4):
        if os.fork() == 0:
            _read_environment_again()
            def draw():
                print(_raylet.UniqueID.from_random().hex(), flush=True)
            draw()
            for _ in range(2):
                thread = threading.Thread(target=draw)
                thread.start()
                thread.join()
            os._exit(0)
        os.wait()
"""


def test_the_main_thread_rests_between_two_looks_once_a_process_has_started_and_no_other_does(
    monkeypatch,
):
    assert raylet.sys is sys  # Ray's compiled part asks it at every look
    rests: list[float] = []
    monkeypatch.setattr(module.time, "sleep", rests.append)
    system = RestingSystem()
    assert not system.is_finalizing()
    assert rests == []
    system._rests_at = 0.0
    with ThreadPoolExecutor(1) as other:
        assert not other.submit(system.is_finalizing).result()
    assert rests == []
    assert not system.is_finalizing()
    assert rests == [module.LOOK_S]
    assert system.modules is sys.modules


def test_other_processes_are_as_they_were_but_for_their_session():
    assert lean_command(["gcs_server", "--x=1"], "gcs_server")[1:] == ["gcs_server", "--x=1"]


def test_all_is_as_before_behind_it_and_rays_processes_find_no_pandas(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/before")
    before = [services.start_ray_process, node.Node.start_api_server, node.Node.start_log_monitor]
    with lean_ray(tmp_path):
        assert services.start_ray_process is not before[0]
        program = "try: import pandas\nexcept ImportError as error: print(error)"
        said = subprocess.check_output([sys.executable, "-c", program], text=True)
        assert "lean_ray.py" in said
        assert environment_of_commands()["PYTHONPATH"] == "/before"
    after = [services.start_ray_process, node.Node.start_api_server, node.Node.start_log_monitor]
    assert after == before
    assert os.environ["PYTHONPATH"] == "/before"

    with lean_ray(tmp_path, follows_logs=True):
        assert node.Node.start_log_monitor is before[2]


@pytest.mark.parametrize("version", ["2.59.1", "2.61.0", "3.0.0"])
def test_another_ray_starts_as_it_always_does(version, tmp_path, monkeypatch):
    before = services.start_ray_process
    monkeypatch.setattr(metadata, "version", lambda _: version)
    with lean_ray(tmp_path), forks_for_ray(Settings(data_dir=tmp_path)) as forks:
        assert services.start_ray_process is before
        assert forks is None


def test_it_can_be_switched_off(tmp_path, monkeypatch):
    before = services.start_ray_process
    monkeypatch.setenv(SWITCH, "off")
    with lean_ray(tmp_path):
        assert services.start_ray_process is before
    assert SWITCH in why_not_lean()
