"""Starting: folders, secrets, and waiting for what does not start."""

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from bandits.errors import StartupError
from serve_app import runtime
from serve_app.host.embedded import alone
from serve_app.settings import Settings


def test_a_second_service_cannot_use_the_same_folder(tmp_path):
    with alone(tmp_path), pytest.raises(StartupError, match="in use"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass


def test_a_made_salt_is_kept_and_readable_by_its_owner_alone(tmp_path):
    first = Settings(data_dir=tmp_path).secret()
    assert len(first) == 64
    assert Settings(data_dir=tmp_path).secret() == first
    assert (tmp_path / "salt").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["salt"]


def test_a_short_or_empty_salt_is_refused(tmp_path):
    (tmp_path / "salt").write_bytes(b"")
    with pytest.raises(StartupError, match="0 bytes"):
        Settings(data_dir=tmp_path).secret()
    with pytest.raises(StartupError, match="5 bytes"):
        Settings(data_dir=tmp_path, salt="short").secret()


@pytest.mark.parametrize(
    ("given", "root"),
    [
        (None, "/data/archive"),
        ("", ""),
        ("none", ""),
        ("/somewhere/else", "/somewhere/else"),
        ("here", str(Path("here").resolve())),
        ("s3://bucket/prefix", "s3://bucket/prefix"),
    ],
)
def test_where_the_archive_is(given, root):
    """A relative path is resolved, because the archiver runs in another folder."""
    settings = Settings(data_dir=Path("/data"), archive=given)
    assert settings.archive_root() == root
    assert settings.model_copy(update={"archive": root}).archive_root() == root


def test_retries_need_the_log_for_longer_than_they_may_come():
    with pytest.raises(ValidationError, match="archive_retain_s"):
        Settings(archive_retain_s=600)


def waits(
    monkeypatch, *moments: tuple[bool, str], still: tuple[str, ...] = (), policies: int = 1
) -> None:
    """Wait for a service that answers or not, of which Serve says this, at each look.

    The last for ever.
    """
    left = list(moments)
    now = [0.0]

    def look() -> tuple[bool, str]:
        return left[0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if len(left) > 1:
            left.pop(0)

    monkeypatch.setattr(runtime, "is_ready", lambda _url: look()[0])
    monkeypatch.setattr(runtime, "without_model", lambda _url: list(still))
    monkeypatch.setattr(runtime, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    part = SimpleNamespace(message="learner-home: a replica died")
    runtime._wait_until_ready(
        "http://there",
        lambda: SimpleNamespace(status=look()[1], deployments={"learner-home": part}, message=""),
        policies,
    )


def test_a_service_whose_only_policy_can_have_no_model_says_where_learning_stands_still(
    monkeypatch,
):
    with pytest.raises(StartupError, match="at the spec 5-0") as raised:
        waits(monkeypatch, (False, "DEPLOYING"), still=("home stands still at the spec 5-0",))
    assert raised.value.target == "learning"


def test_a_policy_that_can_have_no_model_does_not_keep_the_others_from_being_served(
    monkeypatch, caplog
):
    waits(monkeypatch, (False, "RUNNING"), still=("home stands still at the spec 5-0",), policies=2)
    assert "at the spec 5-0" in caplog.text


def test_a_replica_that_dies_while_others_start_does_not_end_the_service(monkeypatch):
    waits(
        monkeypatch,
        (False, "DEPLOYING"),
        (False, "DEPLOY_FAILED"),
        (False, "DEPLOYING"),
        (True, "RUNNING"),
    )


def test_a_service_that_answers_is_not_ended_by_what_serve_says_of_a_part(monkeypatch, caplog):
    waits(monkeypatch, (False, "DEPLOYING"), (True, "DEPLOY_FAILED"))
    assert "a replica died" in caplog.text


@pytest.mark.parametrize("state", ["DEPLOY_FAILED", "DEPLOYING"])
def test_a_service_that_does_not_start_says_which_part(monkeypatch, state):
    with pytest.raises(StartupError, match="a replica died") as raised:
        waits(monkeypatch, (False, "DEPLOYING"), (False, state))
    assert raised.value.target == "deployments"


def test_a_serve_that_does_not_start_is_not_asked_for_an_application(monkeypatch):
    def fail(**_: object) -> None:
        raise RuntimeError("no port")

    monkeypatch.setattr("ray.serve.start", fail)
    monkeypatch.setattr("ray.util.list_named_actors", lambda **_: [])
    with pytest.raises(RuntimeError, match="no port"), runtime._serve_started({}):
        pytest.fail("asked")


def test_an_application_is_deployed_while_haproxy_starts_and_waited_for_with_it(monkeypatch):
    deployed, steps = threading.Event(), []

    def start(**_: object) -> None:
        assert deployed.wait(10)
        steps.append("started")

    monkeypatch.setattr("ray.serve.start", start)
    monkeypatch.setattr("ray.util.list_named_actors", lambda **_: [runtime.CONTROLLER])
    with runtime._serve_started({}):
        steps.append("deployed")
        deployed.set()
    assert steps == ["deployed", "started"]
