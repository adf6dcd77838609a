#!/usr/bin/env bash
# implicit 0.7.3: "precision" at k is neither precision nor recall, nor a mean over users.
#
# One would guess that precision at 4 is hits / 4, averaged over users. ranking_metrics_at_k sums the hits of all users
# and divides once by the sum of min(k, liked items of the user): a perfect list of a user who likes one item has 1.0
# and not 0.25, and a user with many liked items weighs more than one with few. NDCG of the same call is a mean
# over users.
# What to do instead: take the lists from model.recommend and compute the metrics of all libraries by one function.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check implicit==0.7.3 numpy==2.4.6 scipy==1.17.1

"$work/env/bin/python" - <<'EOF'
import numpy as np
from implicit.evaluation import ranking_metrics_at_k
from scipy.sparse import csr_matrix

K = 4


class Fixed:
    """Recommends what it was given."""

    def __init__(self, lists: list[list[int]]) -> None:
        self.lists = np.array(lists, dtype=np.int32)

    def recommend(self, users, user_items, N=K, **options):
        return self.lists[users, :N], np.ones((len(users), N), dtype=np.float32)


def metrics(lists: list[list[int]], liked: list[list[int]]) -> dict[str, float]:
    test = np.zeros((len(lists), 8), dtype=np.float32)
    for user, items in enumerate(liked):
        test[user, items] = 1
    train = csr_matrix(np.zeros_like(test))
    return ranking_metrics_at_k(Fixed(lists), train, csr_matrix(test), K=K, show_progress=False)


perfect = metrics([[0, 5, 6, 7]], [[0]])
print("one liked item, recommended first:", perfect)
assert perfect["precision"] == 1.0  # hits / 4 is 0.25

mixed = metrics([[0, 5, 6, 7], [4, 5, 6, 7]], [[0], [0, 1, 2, 3]])
print("the same, and a user of whose four items none is found:", mixed)
assert mixed["precision"] == 0.2  # mean precision 0.125, mean recall 0.5
assert mixed["ndcg"] == 0.5
EOF
echo "as described"
