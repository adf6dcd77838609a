"""Runs each instruction of the Dockerfile in a chroot, and then the image, without Docker.

    python tests/support/dockerfile.py [DOCKERFILE]

Needs root, debootstrap and package registries. A stage is a copy of what debootstrap makes of the
image that FROM names (debian:SUITE-slim); COPY, WORKDIR, ENV, USER and RUN do in it what Docker
would. All of it happens in mount and process namespaces of its own, which end with it. Then, in a
network namespace without any way out, the image makes an API key, is started by its ENTRYPOINT and
CMD as its USER, gets healthy by its HEALTHCHECK, and answers a rank.
"""

import ctypes
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path.home() / ".cache" / "banditloop" / "debootstrap"
MIRROR = "http://deb.debian.org/debian"
OF_THE_MACHINE = re.compile(r"(?i)(https?|no)_proxy|PIP_(INDEX_URL|EXTRA_INDEX_URL)")
"""Variables by which this machine reaches registries: what --build-arg would give to Docker."""
CERTIFICATES = "/etc/certificates-of-this-machine.crt"
"""Where an image has what PIP_CERT names here: no package owns that path."""
INSIDE = "--inside"
CLONE_NEWNET = 0x40000000
HEALTHY_S = 120


class Instruction(NamedTuple):
    """One instruction of a Dockerfile, its continued lines joined."""

    word: str
    text: str

    def words(self) -> list[str]:
        """Its arguments without options, in the form of a list or of words."""
        rest = self.text
        while found := re.match(r"--[\w-]+=\S+\s+", rest):
            rest = rest[found.end() :]
        return list(json.loads(rest)) if rest.startswith("[") else shlex.split(rest)

    def option(self, name: str) -> str | None:
        """The value of ``--name=``."""
        found = re.match(rf"(?:--[\w-]+=\S+\s+)*?--{name}=(\S+)", self.text)
        return found[1] if found else None


def parse(text: str) -> list[Instruction]:
    """Return the instructions of a Dockerfile."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    pairs = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [Instruction(word.upper(), rest.strip()) for word, rest in pairs]


@dataclass
class Stage:
    """An image as it is built, and what it is started with."""

    root: Path
    user: str = "root"
    workdir: str = "/"
    environment: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def note(self, instruction: Instruction) -> None:
        """Keep what an instruction says of how commands are run in the image."""
        word, text = instruction
        if word == "WORKDIR":
            self.workdir = str(Path(self.workdir, text))
            (self.root / self.workdir.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "ENV":
            self.environment |= dict(each.split("=", 1) for each in shlex.split(text))
        elif word == "ENTRYPOINT":
            self.entrypoint = instruction.words()
        elif word == "CMD":
            self.command = instruction.words()
        elif word == "HEALTHCHECK":
            self.health = list(json.loads(text.partition("CMD ")[2]))
        elif word != "EXPOSE":
            raise ValueError(f"no such instruction here: {word}")

    def start(self, words: Sequence[str]) -> list[str]:
        """The command line, outside the image, that runs ``words`` inside it."""
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        environment |= {"HOME": self._home(), **of_the_machine(), **self.environment}
        assignments = [f"{name}={value}" for name, value in environment.items()]
        script = f"cd {shlex.quote(self.workdir)} && exec {shlex.join(words)}"
        chroot = ["chroot", f"--userspec={self.user}", str(self.root)]
        return [*chroot, "/usr/bin/env", "-i", *assignments, "/bin/sh", "-c", script]

    def _home(self) -> str:
        users = [line.split(":") for line in (self.root / "etc/passwd").read_text().splitlines()]
        return next(fields[5] for fields in users if fields[0] == self.user)


def of_the_machine() -> dict[str, str]:
    """The variables by which this machine reaches registries."""
    given = {name: value for name, value in os.environ.items() if OF_THE_MACHINE.fullmatch(name)}
    return given | ({"PIP_CERT": CERTIFICATES} if "PIP_CERT" in os.environ else {})


class Build:
    """The stages of a Dockerfile, by name and in order."""

    def __init__(self, context: Path, folder: Path) -> None:
        self._context = context
        self._folder = folder
        self.stages: dict[str, Stage] = {}
        self.last: Stage | None = None

    def run(self, instruction: Instruction) -> None:
        """Do what an instruction says."""
        if instruction.word == "FROM":
            self._from(instruction.text.split())
            return

        assert self.last is not None, "a Dockerfile begins with FROM"
        if instruction.word == "RUN":
            execute(self.last.start(["/bin/sh", "-c", instruction.text]))
        elif instruction.word == "COPY":
            self._copy(self.last, instruction)
        elif instruction.word == "USER":
            execute(["chroot", str(self.last.root), "id", instruction.text])
            self.last.user = instruction.text
        else:
            self.last.note(instruction)

    def _from(self, words: Sequence[str]) -> None:
        suite = re.fullmatch(r"debian:(\w+)-slim", words[0])
        assert suite, f"only debian:SUITE-slim can be made here, not {words[0]}"
        base = CACHE / suite[1]
        if not base.exists():
            scratch = base.with_name(f".{suite[1]}")
            execute(["rm", "-rf", "--one-file-system", str(scratch)])
            scratch.mkdir(parents=True)
            execute(["debootstrap", "--variant=minbase", suite[1], str(scratch), MIRROR])
            scratch.rename(base)

        stage = Stage(self._folder / str(len(self.stages)))
        execute(["cp", "-a", str(base), str(stage.root)])
        prepare(stage.root)
        self.stages[words[2] if len(words) > 1 else ""] = self.last = stage

    def _copy(self, stage: Stage, instruction: Instruction) -> None:
        *sources, target = instruction.words()
        origin = instruction.option("from")
        place = stage.root / str(Path(stage.workdir, target)).lstrip("/")
        many = target.endswith("/")
        for source in sources:
            path = (self.stages[origin].root if origin else self._context) / source.lstrip("/")
            if path.is_dir():
                skipped = shutil.ignore_patterns("__pycache__") if origin is None else None
                shutil.copytree(path, place, symlinks=True, ignore=skipped, dirs_exist_ok=True)
            else:
                (place if many else place.parent).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, place / path.name if many else place)


def prepare(root: Path) -> None:
    """Give a root what containers get, and what this machine needs to reach registries."""
    for kind, source, target in [
        ("proc", "proc", "proc"),
        ("", "/dev", "dev"),
        ("", "/sys", "sys"),
    ]:
        how = ["-t", kind] if kind else ["--rbind"]
        execute(["mount", *how, source, str(root / target)])
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    if "PIP_CERT" in os.environ:
        shutil.copy(os.environ["PIP_CERT"], root / CERTIFICATES.lstrip("/"))


def execute(command: Sequence[str]) -> None:
    """Run a command that must succeed."""
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def start(stage: Stage) -> None:
    """Start the image as its users would, and ask it for a decision."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no network namespace")
    execute(["ip", "link", "set", "lo", "up"])

    create = ["keys", "create", "shop", "--scope", "rank"]
    made = subprocess.run(
        stage.start([*stage.entrypoint, *create]), check=True, stdout=subprocess.PIPE, text=True
    )
    with subprocess.Popen(stage.start([*stage.entrypoint, *stage.command])) as service:
        try:
            deadline = time.monotonic() + HEALTHY_S
            while subprocess.run(
                stage.start(stage.health), check=False, capture_output=True
            ).returncode:
                assert service.poll() is None, "the service has ended"
                assert time.monotonic() < deadline, f"not healthy after {HEALTHY_S} s"
                time.sleep(1)

            request = urllib.request.Request(
                "http://127.0.0.1:8000/v1/policies/home/rank",
                json.dumps({"actions": [{"id": "news"}, {"id": "match"}]}).encode(),
                {"authorization": f"Bearer {made.stdout.strip()}"},
            )
            with urllib.request.urlopen(request, timeout=10) as response:
                answer = json.load(response)
            assert answer["logged"], answer
            print("healthy, and it answers:", answer)
        finally:
            service.terminate()
            service.wait(60)


def build_and_start(dockerfile: Path, folder: Path) -> None:
    """Build, saying what is done, and start."""
    build = Build(ROOT, folder)
    for instruction in parse(dockerfile.read_text()):
        began = time.monotonic()
        print(f"== {instruction.word} {instruction.text}", flush=True)
        build.run(instruction)
        print(f"   {time.monotonic() - began:.1f} s", flush=True)

    assert build.last is not None
    start(build.last)


def main(arguments: list[str]) -> int:
    """Build and start in namespaces of one's own; whatever is mounted there is gone with them."""
    if INSIDE in arguments:
        build_and_start(Path(arguments[1]), Path(arguments[2]))
        return 0

    dockerfile = arguments[0] if arguments else str(ROOT / "deploy" / "Dockerfile")
    folder = tempfile.mkdtemp(prefix="banditloop-dockerfile-")
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = [*namespaces, sys.executable, __file__, INSIDE, dockerfile, folder]
    try:
        return subprocess.run(command, check=False).returncode
    finally:
        execute(["rm", "-rf", "--one-file-system", folder])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
