#!/usr/bin/env bash
# mabwiser 2.7.4: UCB1 never chooses an arm that was added after the first fit.
#
# One would guess that an arm nobody has tried is the first that UCB1 tries (Auer, Cesa-Bianchi and Fischer 2002: each
# arm once, then the largest upper confidence bound). Here the bound of an arm without observations is 0, below that of
# every arm that has paid anything, and it stays there however many rounds pass. Where all rewards are negative it is the
# other way round: the untried arm has the largest bound.
# What to do instead: give each new arm one decision before asking UCB1, or copy what a similar arm has learned
# (warm_start, which needs features of the arms).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check mabwiser==2.7.4 numpy==2.4.6

"$work/env/bin/python" - <<'EOF'
import random

from mabwiser.mab import MAB, LearningPolicy

PAYS = {"first": 0.5, "second": 0.3, "new": 0.9}


def bandit(rewards: list[int]) -> MAB:
    """A bandit that has tried two arms in turn, and is then given a third."""
    made = MAB(["first", "second"], LearningPolicy.UCB1(alpha=1.0), seed=1)
    made.fit(["first", "second"] * (len(rewards) // 2), rewards)
    made.add_arm("new")
    return made


paid = bandit([1, 0, 1, 0, 0, 0, 1, 1])
print("upper confidence bounds:", paid.predict_expectations())
assert paid.predict_expectations()["new"] == 0

chance, chosen = random.Random(0), dict.fromkeys(PAYS, 0)
for _ in range(2000):
    arm = paid.predict()
    chosen[arm] += 1
    paid.partial_fit([arm], [int(chance.random() < PAYS[arm])])
print("chosen in 2,000 rounds, in which the new arm would pay most:", chosen)
assert chosen["new"] == 0

costs = bandit([-9, -8, -9, -9, -8, -9, -9, -8])
print("where arms cost something:", costs.predict_expectations(), "->", costs.predict())
assert costs.predict() == "new"
EOF
echo "as described"
