"""The demo's report: as JSON, and as tables for a person."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Group

from serve_app.cli.terminal import empty_table
from simulator.worlds.demo import STARTS, Traffic, percentiles, summary

Curves = dict[str, NDArray[np.float64]]
"""By policy, the reward of every round."""


def make_report(
    rounds: int, seed: int, curves: Curves, traffic: Traffic, measured: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the report as it is written to a file.

    Args:
        rounds: Decisions of the run.
        seed: Its seed.
        curves: Rewards of the bandit, the fixed policies and the ablations.
        traffic: What the traffic saw.
        measured: What the log and the learner say; it becomes part of the report.
    """
    reward = {name: summary(values) for name, values in curves.items()}
    bandit = reward["bandit"]["last_quarter"]

    # The bandit has to beat whichever source would have been best to serve alone.
    best = max(reward[name]["last_quarter"] for name in ("cf", "deep", "popular"))

    return {
        "rounds": rounds,
        "seed": seed,
        "reward": reward,
        "lift_over_best_source": _lift(bandit, best),
        "lift_over_ids_only": _lift(bandit, reward["ids_only"]["last_quarter"]),
        "latency_ms": percentiles(traffic.latencies_ms),
        "unlogged": traffic.unlogged,
        **measured,
    }


def demo_tables(report: Mapping[str, Any]) -> Group:
    """Return the report for a person."""
    columns = {
        **{f"first_{rounds}": f"first {rounds:,}" for rounds in STARTS},
        "overall": "overall",
        "last_quarter": "last quarter",
    }
    numbers = tuple(columns.values())
    rewards = empty_table("policy", *numbers, title="mean reward", numbers=numbers)
    best_first = sorted(report["reward"].items(), key=lambda item: -item[1]["last_quarter"])
    for name, means in best_first:
        cells = (f"{means[column]:.4f}" for column in columns)
        rewards.add_row(name, *cells, style="bold green" if name == "bandit" else "")

    audit, latency, freshness = (
        report[name] for name in ("propensity_audit", "latency_ms", "freshness_ms")
    )
    events = ", ".join(f"{count:,} {name}" for name, count in report["events"].items())
    facts = {
        "last quarter, against the best single source": f"x {report['lift_over_best_source']:.3f}",
        "last quarter, against ids only": f"x {report['lift_over_ids_only']:.3f}",
        "rank over HTTP, p50 / p99": f"{latency['p50']:.1f} / {latency['p99']:.1f} ms",
        "learnable to served by all, p50 / p99": (
            f"{freshness['p50']:.0f} / {freshness['p99']:.0f} ms"
        ),
        "events": events,
        "snapshots published": f"{report['snapshots']:,}",
        "draws derived again from the log": f"{audit['rederived']:,} of {audit['decisions']:,}",
        "mean of 1/propensity against its expectation": f"{audit['z']:+.2f} standard errors",
    }
    figures = empty_table("what", "figure", show_header=False)
    for what, figure in facts.items():
        figures.add_row(what, figure)
    return Group(rewards, figures)


def _lift(value: float, base: float) -> float:
    """Return ``value / base``; infinite when the base earned nothing (null in JSON)."""
    return value / base if base else float("inf")
