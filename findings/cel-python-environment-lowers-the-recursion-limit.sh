#!/usr/bin/env bash
# cel-python 0.5.0: whoever makes a celpy.Environment has the recursion limit of the whole process set to 2,500.
#
# One would expect a library that reads expressions to leave the interpreter as it is, or at most to raise the limit. A
# program that had set a higher one, for deep trees of its own, meets RecursionError in code that has nothing to do with
# CEL, as soon as the first condition was compiled anywhere in it; tests that watch the limit, as hypothesis does, fail.
# Who only parses (celpy.celparser.CELParser) does not meet it.
set -euo pipefail
where=$(mktemp -d)
trap 'rm -rf "$where"' EXIT
python3 -m venv "$where/venv"
"$where/venv/bin/pip" install -q --disable-pip-version-check cel-python==0.5.0
"$where/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import celpy
from celpy.celparser import CELParser


def nested(depth):
    return depth and 1 + nested(depth - 1)


sys.setrecursionlimit(10_000)
assert nested(5_000) == 5_000
CELParser().parse("item.stock > 0")
parsed = sys.getrecursionlimit()

environment = celpy.Environment()
made = sys.getrecursionlimit()
try:
    nested(5_000)
    went = "as before"
except RecursionError:
    went = "RecursionError"

print(f"cel-python {version('cel-python')}")
print(f"limit 10000; after parsing {parsed}; after celpy.Environment() {made}; 5,000 calls deep: {went}")
assert (parsed, made, went) == (10_000, 2_500, "RecursionError")
PYTHON
echo "as described"
