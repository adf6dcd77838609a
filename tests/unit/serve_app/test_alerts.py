"""Each alert of deploy/alerts.yaml fires on the fault that it is for, and on nothing else: promtool evaluates the rules."""

import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from support.prometheus import program

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
RULES = [DEPLOY / name for name in ("recording.yaml", "alerts.yaml")]
STEPS = 45
"""Minutes of series, unless a case says more: promtool evaluates every rule in each of them."""


def always(value: float, steps: int = STEPS) -> str:
    return f"{value}x{steps}"


def rising(by: float, steps: int = STEPS) -> str:
    """A counter that goes up by so much each minute."""
    return f"0+{by}x{steps}"


def once(after: int = STEPS - 5) -> str:
    """A counter that is 0, and then 1 for good."""
    return f"0x{after} 1x{STEPS - after}"


def decisions(logged: float = 10, unlogged: float = 0, steps: int = STEPS) -> dict[str, str]:
    return {
        of_policy("decisions_total", logged="true"): rising(logged, steps),
        of_policy("decisions_total", logged="false"): rising(unlogged, steps),
    }


def series(name: str, labels: dict[str, str]) -> str:
    said = ", ".join(f'{key}="{value}"' for key, value in labels.items())
    return f"{name}{{{said}}}"


def of_policy(name: str, **labels: str) -> str:
    return series(f"banditloop_{name}", {"policy": "home", **labels})


def of_space(name: str, **labels: str) -> str:
    return series(f"banditloop_{name}", {"space": "shop", **labels})


def requests(**by_status: float) -> dict[str, str]:
    return {
        series("banditloop_requests_total", {"route": "rank", "status": status[1:]}): rising(by)
        for status, by in by_status.items()
    }


def latency(fast: float, slow: float) -> dict[str, str]:
    """So many a step within a millisecond, and so many that take up to a second."""
    name = "rank_latency_seconds_bucket"
    return {
        of_policy(name, le="0.001"): rising(fast),
        of_policy(name, le="0.2"): rising(fast),
        of_policy(name, le="1.0"): rising(fast + slow),
        of_policy(name, le="+Inf"): rising(fast + slow),
    }


def outcomes(**by: str) -> dict[str, str]:
    return {of_policy("log_outcomes_total", outcome=name): values for name, values in by.items()}


LONG = 160


class Case(NamedTuple):
    """Series on which an alert fires, with its labels, and series on which it does not."""

    fires: dict[str, str]
    not_on: dict[str, str]
    labels: dict[str, str] = {"policy": "home"}  # noqa: RUF012 - never changed
    steps: int = STEPS


KEYS_FILE = series("banditloop_keys_file_failures_total", {"process": "a"})
UP = 'up{job="banditloop", instance="shop:8000"}'
CASES = {
    "BanditloopDown": Case(
        {UP: always(0)}, {UP: f"1x10 0 1x{STEPS}"}, {"job": "banditloop", "instance": "shop:8000"}
    ),
    "BanditloopRequestsFail": Case(
        requests(_200=10, _500=1), requests(_200=10, _404=5, _429=5), {}
    ),
    "BanditloopRankSlow": Case(latency(98, 2), latency(1000, 2)),
    "BanditloopNotLogged": Case(decisions(100, 1), decisions(100)),
    "BanditloopKeysFileRefused": Case(
        {KEYS_FILE: once()},
        {KEYS_FILE: always(3)},
        {},
    ),
    "BanditloopLearningStalled": Case(
        {of_policy("learning_stalled", kind="spec"): always(1)},
        {of_policy("learning_stalled", kind=""): always(0)},
        {"policy": "home", "kind": "spec"},
    ),
    "BanditloopLearnerBehind": Case(
        {of_policy("learner_lag_seconds"): always(90)},
        {of_policy("learner_lag_seconds"): f"90x10 0x{STEPS}"},
    ),
    "BanditloopNoRewards": Case(
        decisions(steps=LONG) | {of_policy("reward_events_total"): always(7, LONG)},
        decisions(steps=LONG) | {of_policy("reward_events_total"): rising(0.1, LONG)},
        steps=LONG,
    ),
    "BanditloopRewardsAstray": Case(
        outcomes(joined=rising(4), orphan=rising(1)),
        outcomes(joined=rising(20), orphan=rising(1), late=rising(1)),
    ),
    "BanditloopEntriesRefused": Case(
        outcomes(refused_spec=once()),
        outcomes(refused_spec=always(5), joined=rising(3)),
        {"policy": "home", "outcome": "refused_spec"},
    ),
    "BanditloopUnknownSignals": Case(
        outcomes(unknown_signal=once()),
        outcomes(unknown_signal=always(5)),
        {"policy": "home", "outcome": "unknown_signal"},
    ),
    "BanditloopSnapshotsNotLoaded": Case(
        {of_policy("snapshot_failures_total", reason="corrupt"): rising(30)},
        {of_policy("snapshot_failures_total", reason="corrupt"): once(10)},
        {"policy": "home", "reason": "corrupt"},
    ),
    "BanditloopColumnsUsedUp": Case(
        {of_policy("free_columns"): always(0)}, {of_policy("free_columns"): always(1)}
    ),
    "BanditloopSourceFails": Case(
        decisions() | {of_policy("source_failures_total", source="als"): rising(1)},
        decisions() | {of_policy("source_failures_total", source="als"): rising(0.1)},
        {"policy": "home", "source": "als"},
    ),
    "BanditloopArtifactBehind": Case(
        {
            of_policy("artifact_behind", process="a"): always(1),
            of_policy("artifact_behind", process="b"): always(0),
        },
        {of_policy("artifact_behind", process="a"): f"1x5 0x{STEPS}"},
    ),
    "BanditloopRefreshFailed": Case(
        {of_policy("refreshes_total", outcome="failed"): once()},
        {of_policy("refreshes_total", outcome="accepted"): once()},
    ),
    "BanditloopShadowBehind": Case(
        {of_policy("shadow_lag_seconds", shadow="next"): f"3000+60x{STEPS}"},
        {of_policy("shadow_lag_seconds", shadow="next"): f"3700x10 5x{STEPS}"},
        {"policy": "home", "shadow": "next"},
    ),
    "BanditloopNotArchived": Case(
        {of_policy("archive_lag_seconds"): f"0+60x{STEPS}"},
        {of_policy("archive_lag_seconds"): always(60)},
    ),
    "BanditloopProfilesUnread": Case(
        decisions() | {of_policy("profiles_unread_total"): rising(1)},
        decisions() | {of_policy("profiles_unread_total"): rising(0.05)},
    ),
    "BanditloopActivityBehind": Case(
        {of_space("activity_lag_seconds"): always(31)},
        {of_space("activity_lag_seconds"): always(1)},
        {"space": "shop"},
    ),
    "BanditloopActivityRefused": Case(
        {of_space("activity_inbox_total", outcome="refused"): once()},
        {of_space("activity_inbox_total", outcome="moved"): rising(10)},
        {"space": "shop"},
    ),
    "BanditloopUsersNotCopied": Case(
        {of_space("users_backup_age_seconds"): f"9000+60x{STEPS}"},
        {of_space("users_backup_age_seconds"): always(3600)},
        {"space": "shop"},
    ),
}


def test_every_alert_has_a_case():
    groups = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]
    assert [rule["alert"] for group in groups for rule in group["rules"]] == list(CASES)


def test_promtool_finds_nothing_wrong_with_the_rules():
    done = subprocess.run(
        [program("promtool"), "check", "rules", "--lint-fatal", *map(str, RULES)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def check(tmp_path: Path, cases: dict[str, Case]) -> "subprocess.CompletedProcess[str]":
    """Have promtool evaluate the rules over the series of some cases: what fires, and what does not."""
    tests = []
    for alert, case in cases.items():
        labels = {"alertname": alert, **case.labels}
        fired = series("", labels)
        tests += [
            _test(f"{alert} fires", case.fires, case.steps, [{"labels": fired, "value": 1}]),
            _test(f"{alert} does not", case.not_on, case.steps, []),
        ]
    written = tmp_path / "alerts_test.yaml"
    written.write_text(
        yaml.safe_dump(
            {
                "rule_files": [str(path) for path in RULES],
                "evaluation_interval": "1m",
                "tests": tests,
            }
        )
    )
    command = [program("promtool"), "test", "rules", str(written)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _test(
    name: str, given: dict[str, str], steps: int, expected: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": key, "values": values} for key, values in given.items()],
        "promql_expr_test": [
            {
                "expr": 'sum without (severity, alertstate) (ALERTS{alertstate="firing"})',
                "eval_time": f"{steps}m",
                "exp_samples": expected,
            }
        ],
    }


def test_each_alert_fires_on_its_fault_and_nothing_else_does(tmp_path):
    done = check(tmp_path, CASES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_alert_that_did_not_fire_would_be_found(tmp_path):
    """The series of a case the other way round: promtool says what was to fire, and what did."""
    alert = "BanditloopRewardsAstray"
    case = CASES[alert]
    done = check(tmp_path, {alert: case._replace(fires=case.not_on, not_on=case.fires)})
    said = re.sub(r"\s+", " ", done.stdout + done.stderr)
    assert done.returncode != 0
    assert re.search(rf'exp: {{alertname="{alert}".*?}} 1E\+00 got: nil', said)
    assert re.search(rf'exp: nil got: {{alertname="{alert}".*?}} 1E\+00', said)
