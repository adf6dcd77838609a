#!/usr/bin/env bash
# RecTools 0.19.0: NDCG of a perfect list is 0.22 where a user has one item to be found.
#
# NDCG is divided by the gain of the best list there can be, so one would guess that a list that has all of a user's
# items in front has 1. By default RecTools divides by the gain of k hits, however few items the user has in the test: a
# user with one, recommended first, has 0.220 at k = 10. Where each user's last item is left out, as is usual for
# sequence models, every NDCG is 4.54 times smaller than that of other libraries and of papers. With
# divide_by_achievable=True it is the usual one.
# What to do instead: pass divide_by_achievable=True, or compute the metric of all libraries' lists by one function.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check rectools==0.19.0

"$work/env/bin/python" - <<'EOF'
import math

import pandas as pd
from rectools import Columns
from rectools.metrics import NDCG

K = 10
recommended = pd.DataFrame(
    {Columns.User: [1] * K, Columns.Item: [f"item {n}" for n in range(K)], Columns.Rank: range(1, K + 1)}
)
seen = {}
for liked in (1, 3, K):
    test = recommended[[Columns.User, Columns.Item]].head(liked)
    usual = NDCG(k=K, divide_by_achievable=True).calc(recommended, test)
    seen[liked] = NDCG(k=K).calc(recommended, test)
    print(f"{liked} liked, all of them in front: {seen[liked]:.3f} by default, {usual:.3f} if achievable")
    assert math.isclose(usual, 1)

gains = [1 / math.log2(rank + 1) for rank in range(1, K + 1)]
for liked, value in seen.items():
    assert math.isclose(value, sum(gains[:liked]) / sum(gains))
assert round(seen[1], 3) == 0.220
EOF
echo "as described"
