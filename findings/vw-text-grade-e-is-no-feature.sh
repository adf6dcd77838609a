#!/usr/bin/env bash
# vowpal-wabbit-next 0.7.0 (VW 9.10): of the text features grade:a to grade:f, grade:e is dropped without a word.
#
# VW takes what stands behind the colon for a number where it looks like one, and for a text otherwise. "e" (and "-", "."
# and "e5") count as numbers of the value 0, and a feature of the value 0 is left out; "a", "d" and "f" are texts of the
# value 1. So a categorical feature of single letters loses one of its levels, which then cannot be told from absence.
# What to do instead: write grade=e, which is all name, or have a letter before the value.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check vowpal-wabbit-next==0.7.0 numpy==2.4.6

"$work/env/bin/python" - <<'EOF'
import vowpal_wabbit_next as vw

workspace = vw.Workspace(["--quiet", "--noconstant"])
parser = vw.TextFormatParser(workspace)


def values(line: str) -> list[float]:
    example = parser.parse_line(line)
    return [float(value) for index in example.feat_group_indices for value in example[index].values]


seen = {grade: values(f"|u grade:{grade}") for grade in ("a", "d", "e", "f", "-", ".", "e5", "e_")}
print(seen)
assert seen == {"a": [1.0], "d": [1.0], "e": [], "f": [1.0], "-": [], ".": [], "e5": [], "e_": [1.0]} or exit(
    "another behaviour than described"
)
assert values("|u grade=e") == [1.0]
EOF
echo "as described"
