#!/usr/bin/env bash
# vowpal-wabbit-next 0.7.0 (VW 9.10): one number beyond 1.84e19 and VW learns nothing of the whole example.
#
# VW squares each feature in 32-bit floats. Where the square is infinite, the update of every weight of that example is
# lost, not only of the feature at fault. Nothing is raised; a workspace with --quiet says nothing, any other prints
# "The features have too much magnitude" without saying which. The same holds for the product of two crossed features,
# so two harmless numbers do it: a timestamp in milliseconds (1.7e12) in one namespace and another in the namespace
# that it is crossed with. Every weight stays exactly 0.
# What to do instead: scale timestamps and ids before VW sees them, and look for examples whose products are that large.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check vowpal-wabbit-next==0.7.0 numpy==2.4.6

cat > "$work/try.py" <<'EOF'
import sys

import numpy as np
import vowpal_wabbit_next as vw


def learned(args: list[str], line: str) -> tuple[int, float]:
    """How many weights are not 0 after 200 examples whose label is the feature x, and the prediction at x = 1."""
    workspace = vw.Workspace(["--quiet", *args])
    parser = vw.TextFormatParser(workspace)
    for number in range(200):
        workspace.learn_one(parser.parse_line(f"{number % 2} |a x:{number % 2} {line}"))
    weights = workspace.weights()[:, 0, 0]
    return int(np.count_nonzero(weights)), float(workspace.predict_one(parser.parse_line("|a x:1")))


tried = {
    "a timestamp in nanoseconds": learned([], "|b now:1.7e18"),
    "a number of 3e19": learned([], "|b now:3e19"),
    "timestamps crossed, in seconds": learned(["-q", "ab"], "then:1.7e9 |b now:1.7e9"),
    "timestamps crossed, in milliseconds": learned(["-q", "ab"], "then:1.7e12 |b now:1.7e12"),
}
for what, (weights, predicted) in tried.items():
    print(f"{what}: {weights} weights are not 0, prediction {predicted:.3f}")
assert tried["a timestamp in nanoseconds"][1] > 0.9
assert tried["timestamps crossed, in seconds"][0] > 0
assert tried["a number of 3e19"] == (0, 0.0)
assert tried["timestamps crossed, in milliseconds"] == (0, 0.0)
EOF
"$work/env/bin/python" "$work/try.py" | tee "$work/said"
if grep -qi "too much" "$work/said"; then echo "with --quiet VW says so now" && exit 1; fi
echo "as described"
