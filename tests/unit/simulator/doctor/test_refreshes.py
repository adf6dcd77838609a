"""What the doctor says of the last refresh of a policy's sources."""

import pytest

from banditloop_client.schemas import RefreshInfo
from simulator.doctor.checks.freshness import LiveStatus
from simulator.doctor.checks.refreshes import RefreshOutcome


def _found(last: RefreshInfo | None):
    live = LiveStatus("1-0", 1, True, "1-0", "1-0", 0, 0, refresh=last)
    return list(RefreshOutcome(live).findings())


@pytest.mark.parametrize(
    ("outcome", "severity", "said"),
    [
        ("accepted", "ok", "artifact v7"),
        ("stored", "ok", "elsewhere: v7"),
        ("refused", "warning", "for it was worse: NDCG"),
        ("failed", "warning", "failed (training_died): NDCG"),
    ],
)
def test_a_refresh_that_changed_nothing_is_a_warning(outcome, severity, said):
    last = RefreshInfo(
        outcome, 1, 2, code="training_died", message="NDCG", artifact="v7", counts={outcome: 2}
    )
    (finding,) = _found(last)
    assert finding.severity == severity
    assert said in finding.message
    assert finding.figures == {outcome: 2.0}


def test_a_policy_that_never_had_one_hears_nothing():
    assert _found(None) == []
