"""Estimators of whole sessions: how far off they are, and how far ahead a log reaches.

    banditloop train rl --world satiation --steps 40000 --out build/rl
    python -m benchmarks.replay.session_ope build/rl/model --sessions 1500

A bandit that still explores (softmax of what it learned from 3,000 decisions, floor 0.2) logs
sessions of the satiation world with world seed 0. On that log each estimator says what the trained
policy would earn in the first 1, 2, 5, 10 and 20 decisions of a session; the truth is what it does
earn there, in three times as many sessions.
"""

import argparse
import sys
from pathlib import Path

import msgspec
import numpy as np

from bandits.exploration import Softmax
from benchmarks.machine import describe
from policies.artifacts.learner_model import decode_trained
from policies.blend import load_policy
from simulator.learners.trained import FrozenPolicy, snapshot_of
from simulator.logs.rows import MemoryPiece
from simulator.replay.evaluate_sessions import SessionQuestion, evaluate_sessions
from simulator.rl.experiment import TUNED, bandit_named
from simulator.sessions.log import log_sessions
from simulator.sessions.play import play, train_bandit
from simulator.sessions.satiation import satiation_world

HORIZONS = (1, 2, 5, 10, 20)


def main() -> int:
    """Log, evaluate, print.

    Exit 1 if an estimate that is called reliable is off by 4 standard errors.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="what banditloop train rl wrote")
    parser.add_argument("--sessions", type=int, default=1500)
    given = parser.parse_args()
    print(describe())
    world = satiation_world("satiation", 0)
    model = decode_trained(given.model.read_bytes())
    snapshot = snapshot_of(model, salt=b"benchmark")
    logging = msgspec.structs.replace(
        bandit_named(TUNED["satiation"]), exploration=Softmax(0.1), floor=0.2
    )
    rows = log_sessions(world, logging, train_bandit(world, logging, 3000, 7), given.sessions, 8)
    print(
        f"{given.sessions:,} sessions, {len(rows):,} decisions,"
        f" {np.mean([row.reward for row in rows]):.3f} a decision"
    )
    print("horizon  truth            estimator    value   stderr      ESS  verdict")
    honest = True
    for horizon in HORIZONS:
        played = play(
            world, load_policy(model.spec(), snapshot), 3 * given.sessions, 9, steps=horizon
        )
        truth, spread = played.returns.mean(), played.returns.std() / np.sqrt(len(played.returns))
        question = SessionQuestion([FrozenPolicy("rl", model.spec(), snapshot)], horizon=horizon)
        (result,) = evaluate_sessions(question, [MemoryPiece(rows)]).results
        for name, each in result.estimates.items():
            print(
                f"{horizon:7d}  {truth:6.3f} +- {spread:.3f}  {name:9s}  {each.value:7.3f} "
                f" {each.stderr:7.3f}"
                f"  {each.ess:7,.0f}  {each.verdict}"
            )
            off = abs(each.value - truth) / np.hypot(each.stderr, spread)
            honest &= each.verdict != "reliable" or off < 4.0
        if not all(each.verdict == "reliable" for each in result.estimates.values()):
            print(f"         {result.estimates['pdwis'].reason}")
    return 0 if honest else 1


if __name__ == "__main__":
    sys.exit(main())
