"""An environment of its own for the libraries that a benchmark measures, and a process in it.

replay/peers.py, learning/learner.py and sources/family_peers.py use it.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from simulator.data.datasets import default_cache_dir

PEERS = (
    "sb-obp==0.5.10",
    "vw-estimators==0.2.2",
    "coba==8.1.0",
    "mabwiser==2.7.4",
    "vowpalwabbit==9.11.2",
)
"""Without what they ask for: Open Bandit Pipeline asks for numpy below 2, and runs with 2 all the same.

coba's learner of Vowpal Wabbit is made of the package of that name.
"""
NEEDS = (
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn==1.9.1",
    "seaborn==0.13.2",
    "matplotlib",
    "tqdm",
    "PyYAML",
    "torch",
)
"""What they import.

Torch only because Open Bandit Pipeline does. constraints.txt has the other versions.
"""
LEARNER_PEERS = ("mabwiser==2.7.4", "river==0.26.1")
LEARNER_NEEDS = ("numpy", "scipy", "pandas", "scikit-learn==1.9.1", "narwhals")
"""Of learner.py, which needs no torch: a smaller environment."""
OURS = ("safetensors",)
ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("peers_worker.py")


def peers_python(
    libraries: Sequence[str] = PEERS, needs: Sequence[str] = NEEDS, *, ours: bool = True
) -> Path:
    """The interpreter of the environment.

    The first time it is made, in the user's cache (1.4 GB by default).

    Args:
        libraries: installed without what they ask for.
        needs: what they import.
        ours: whether versions that ``needs`` leaves open are those of constraints.txt.

    Raises:
        subprocess.CalledProcessError: a package cannot be installed; pip has said why.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    constraints = ROOT / "constraints.txt"
    versions = [constraints.read_text()] if ours else ["as the needs say"]
    asked = [version, *libraries, *needs, *OURS, *versions]
    name = hashlib.sha256("\n".join(asked).encode()).hexdigest()[:12]
    home = default_cache_dir() / "peers" / name
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        shutil.rmtree(home, ignore_errors=True)
        print(f"installing {', '.join(libraries)} in {home}", flush=True)
        venv.create(home, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        within = ["--constraint", str(constraints)] if ours else []
        subprocess.run([*pip, *within, *needs, *OURS], check=True)  # noqa: S603
        subprocess.run([*pip, "--no-deps", *libraries], check=True)  # noqa: S603
        (home / "complete").touch()
    return python


class Peers:
    """Asks a process of that environment to run something, one thing at a time."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(self, name: str, **arguments: Any) -> tuple[float, Any]:
        """Seconds that it took, without imports and reading files, and what it found.

        Raises:
            RuntimeError: the process has ended; its errors are on standard error.
        """
        assert self._process.stdin is not None  # noqa: S101 - opened as pipes
        assert self._process.stdout is not None  # noqa: S101
        self._process.stdin.write(json.dumps([name, arguments]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the peers' process ended while it ran {name}")
        seconds, found = json.loads(answer)
        return seconds, found


@contextmanager
def peers(
    python: Path,
    folder: Path,
    *,
    worker: Path = WORKER,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Peers]:
    """Start the process, which finds its data in the folder, and end it.

    What they log is in a file there.

    Args:
        python: the interpreter.
        folder: where its data lies.
        worker: what it runs.
        settings: variables of its environment.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment.update(settings)
    command = [str(python), str(worker), str(folder)]
    with (
        (folder / "peers.log").open("w") as log,
        subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        ) as process,
    ):
        try:
            yield Peers(process)
        except RuntimeError:
            print((folder / "peers.log").read_text()[-4000:], file=sys.stderr)
            raise
        finally:
            assert process.stdin is not None  # noqa: S101
            process.stdin.close()
