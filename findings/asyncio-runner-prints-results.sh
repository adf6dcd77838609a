#!/usr/bin/env bash
# CPython 3.11.7 and 3.12.1 (no longer 3.13.0): asyncio.Runner.run() makes the repr of every coroutine's result, twice, and throws it away.
#
# In the main thread the runner takes over SIGINT while a coroutine runs. signal.signal() and signal.getsignal() try to
# turn the handler into a member of an enum, which fails, and the ValueError that says so holds the repr of the handler:
# a partial with the task, and so with the task's result. So the time of run() grows with how long the result is when
# printed: with four arrays of 20 numbers it is a hundred times that of the same coroutine under run_until_complete().
# What to do instead, where a runner is asked many times: runner.get_loop().run_until_complete(coroutine).
set -euo pipefail
python3 - <<'PYTHON'
import asyncio


class Result:
    printed = 0

    def __repr__(self) -> str:
        Result.printed += 1
        return "a result"


async def answer() -> Result:
    return Result()


with asyncio.Runner() as runner:
    for _ in range(10):
        runner.run(answer())
    by_run, Result.printed = Result.printed, 0

    for _ in range(10):
        runner.get_loop().run_until_complete(answer())
    by_loop = Result.printed

print(f"printed by 10 runs: {by_run}; by 10 of the loop alone: {by_loop}")
assert (by_run, by_loop) == (20, 0)
PYTHON
echo "as described"
