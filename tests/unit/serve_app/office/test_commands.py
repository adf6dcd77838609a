"""Commands of the office: real processes, each run once for all who ask, and none for long."""

import asyncio
import json
import os
import sys

import pytest

from bandits.errors import OfficeBusyError, StillWorkingError
from serve_app.office import commands
from serve_app.office.commands import CommandRunner

# Says what it was told, or ends in the way that it is told to.
PROGRAM = """
import json, os, sys, time
what, *rest = sys.argv[1:]
if what == "say":
    print(json.dumps({"said": rest, "pid": os.getpid(), "secret": os.environ["SECRET"]}))
elif what == "verdict":
    print(json.dumps({"trusted": False})); sys.exit(1)
elif what == "fail":
    print(rest[0], file=sys.stderr); sys.exit(1)
elif what == "sleep":
    time.sleep(float(rest[0])); print("{}")
"""


def runner(**options) -> CommandRunner:
    environment = {**os.environ, "SECRET": "s"}
    return CommandRunner(environment, program=(sys.executable, "-c", PROGRAM), **options)


def error_of(answer: tuple[int, bytes]) -> tuple[int, str, str | None]:
    status, body = answer
    error = json.loads(body)["error"]
    return status, error["code"], error["target"]


async def test_a_command_runs_once_for_all_who_ask_meanwhile_and_for_a_while_after():
    now = [0.0]
    commands_of = runner(kept_s=30.0, clock=lambda: now[0])
    first, same = await asyncio.gather(*(commands_of.answer(("say", "a b")) for _ in range(2)))
    assert first == same == await commands_of.answer(("say", "a b"))
    status, body = first
    assert (status, json.loads(body)["said"], json.loads(body)["secret"]) == (200, ["a b"], "s")
    assert commands_of.started == 1

    now[0] = 31.0
    assert json.loads((await commands_of.answer(("say", "a b")))[1]) != json.loads(body)
    assert commands_of.started == 2


async def test_what_took_long_is_kept_for_longer():
    """Else whoever looks at a long report keeps a processor busy with it."""
    now = [0.0]
    commands_of = runner(kept_s=30.0, clock=lambda: now[0])
    task = asyncio.create_task(commands_of.answer(("say", "a")))
    await asyncio.sleep(0)
    now[0] = 10.0
    await task
    for later, started in ((129.0, 1), (131.0, 2)):
        now[0] = later
        await commands_of.answer(("say", "a"))
        assert commands_of.started == started


async def test_an_exit_status_is_a_verdict_and_an_error_has_the_status_of_its_code():
    commands_of = runner()
    assert await commands_of.answer(("verdict",)) == (200, b'{"trusted":false}')
    said = {
        "error unknown_event: no decision has it": (404, "unknown_event", "event_id"),
        "error data_unavailable: --since is none": (422, "data_unavailable", "since"),
        "warning: x\nerror unknown_policy: none": (404, "unknown_policy", None),
        "error cannot_start: no Redis answers": (503, "cannot_start", None),
        "error redis_failed: gone": (503, "redis_failed", None),
        "Traceback (most recent call last):\nKeyError": (500, "error", None),
    }
    for text, error in said.items():
        assert error_of(await commands_of.answer(("fail", text))) == error

    # What failed is tried again when it is asked again.
    await commands_of.answer(("fail", "error unknown_event: x"))
    await commands_of.answer(("fail", "error unknown_event: x"))
    assert commands_of.started == 1 + len(said) + 2


async def test_who_waits_too_long_is_told_so_and_finds_the_answer_later():
    commands_of = runner(patience_s=0.01)
    with pytest.raises(StillWorkingError, match="still at it"):
        await commands_of.answer(("sleep", "0.1"))
    answers = []
    while not answers:
        try:
            answers.append(await commands_of.answer(("sleep", "0.1")))
        except StillWorkingError:
            continue
    assert (answers, commands_of.started) == ([(200, b"{}")], 1)


async def test_a_command_that_takes_too_long_is_ended_and_so_is_all_at_the_stop(monkeypatch):
    assert error_of(await runner(longest_s=0.05).answer(("sleep", "60")))[1] == "overdue"

    monkeypatch.setattr(commands, "MOST_WAITING", 3)
    commands_of = runner(at_once=2, patience_s=0.01)
    for number in range(3):
        with pytest.raises(StillWorkingError):
            await commands_of.answer(("sleep", f"6{number}"))
    with pytest.raises(OfficeBusyError):
        await commands_of.answer(("sleep", "70"))
    assert commands_of.started == 2
    await commands_of.stop()
    with pytest.raises(StillWorkingError):  # there is room again
        await commands_of.answer(("sleep", "70"))
    await commands_of.stop()
