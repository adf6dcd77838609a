#!/usr/bin/env bash
# redis-py 8.1.0 with hiredis 3.5.0: the asyncio connection packs commands in Python, also where hiredis is installed.
#
# The blocking connection packs them by hiredis then, and both read answers by hiredis, so one would expect both to write
# by it, too. A service that sends many small commands from an event loop spends several times as long on packing them.
# hiredis.pack_command may be called by oneself, and the bytes be written to the connection.
set -euo pipefail
where=$(mktemp -d)
trap 'rm -rf "$where"' EXIT
python3 -m venv "$where/venv"
"$where/venv/bin/pip" install -q --disable-pip-version-check redis==8.1.0 hiredis==3.5.0
"$where/venv/bin/python" - <<'PYTHON'
from unittest.mock import patch

import hiredis
import redis
import redis.asyncio.connection as in_loop
import redis.connection as blocking

calls = []


def packed(*given, **named):
    calls.append(given)
    return hiredis_pack(*given, **named)


hiredis_pack = hiredis.pack_command
with patch.object(hiredis, "pack_command", packed):
    wrote = b"".join(blocking.Connection().pack_command("GET", "k"))
    by_blocking = len(calls)
    assert b"".join(in_loop.Connection().pack_command("GET", "k")) == wrote
    in_the_loop = len(calls) - by_blocking

print(f"redis {redis.__version__}, hiredis {hiredis.__version__}")
print(f"packed by hiredis: the blocking connection {by_blocking}, the asyncio connection {in_the_loop} of 1")
assert (by_blocking, in_the_loop) == (1, 0)
PYTHON
echo "as described"
