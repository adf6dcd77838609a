#!/usr/bin/env bash
# Ray 2.60.0: once a class has been decorated with @ray.remote, forks of the process draw the same random ids, in every thread.
#
# The decorator draws the id of the class, without any cluster. The random numbers of all threads of Ray's compiled part are
# seeded from one pool, which the first number fills from the system; a fork inherits the pool. So in each fork the main
# thread, and also a thread that is started there, draws what those of the other forks draw. Before the first number the
# pool is empty, and forks differ. What to do instead: fork before anything draws, or give the decorator ids of another
# source (`ray.actor.ActorClassID`) while modules are imported.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --disable-pip-version-check "ray==2.60.0"
"$folder/env/bin/python" - <<'PYTHON'
import os
import threading

import ray


def draw(found: list[str]) -> None:
    found.append(ray.UniqueID.from_random().hex()[:8])


def of_a_fork() -> list[str]:
    """What a fork draws in its main thread, and in one that it starts."""
    reads, writes = os.pipe()
    if os.fork() == 0:
        found: list[str] = []
        draw(found)
        thread = threading.Thread(target=draw, args=(found,))
        thread.start()
        thread.join()
        os.write(writes, " ".join(found).encode())
        os._exit(0)
    os.close(writes)
    os.wait()
    return os.read(reads, 1000).decode().split()


before = of_a_fork(), of_a_fork()


@ray.remote
class Counter:
    pass


after = of_a_fork(), of_a_fork()
print("before a class is decorated:", *before)
print("after:", *after)
assert not set(before[0]) & set(before[1])
assert after[0] == after[1]
assert len(set(after[0])) == 2
PYTHON
echo "as described"
