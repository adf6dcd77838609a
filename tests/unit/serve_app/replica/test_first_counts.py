"""Every counter that an alert waits for is there before anything has gone wrong."""

import ast
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from bandits.log import windows
from serve_app.replica.metrics import KNOWN_OUTCOMES, Metrics
from serve_app.replica.scrape import LogState, ServiceCollector
from serve_app.replica.space_metrics import SpaceState
from serve_app.store.stats import Stats


def samples(collector: ServiceCollector) -> dict[tuple[str, str], float]:
    registry = CollectorRegistry()
    registry.register(collector)
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, sample.labels.get("outcome") or sample.labels.get("source", "")): sample.value
        for family in families
        for sample in family.samples
    }


def test_outcomes_refreshes_and_what_an_inbox_refused_are_said_at_0():
    """Prometheus sees no increase in what appears with 1."""
    metrics = Metrics("p")
    metrics.begin("source_failures", "home", "als")
    stats = {"home": Stats("1-0", 0, 0, "s", 1, {"joined": 3})}
    spaces = {"shop": SpaceState(0.0, 1, 0, {})}
    found = samples(
        ServiceCollector(
            [metrics.sample()], stats, {}, {"home": LogState(1, None, 0)}, {}, spaces=spaces
        )
    )
    assert found["banditloop_log_outcomes_total", "joined"] == 3
    assert found["banditloop_log_outcomes_total", "refused_spec"] == 0
    assert found["banditloop_refreshes_total", "failed"] == 0
    assert found["banditloop_activity_inbox_total", "refused"] == 0
    assert found["banditloop_source_failures_total", "als"] == 0


def test_to_begin_a_counter_changes_none_that_is_there():
    metrics = Metrics("p")
    metrics.count("reward_events", "home", by=5)
    metrics.begin("reward_events", "home")
    assert metrics.counts["reward_events", "home"] == 5


def test_whatever_the_join_counts_is_known_from_the_start():
    """By its source: each text that it counts by."""
    tree = ast.parse(Path(windows.__file__).read_text())
    counted = {
        text.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "self.counts"
        for text in ast.walk(node.slice)
        if isinstance(text, ast.Constant) and isinstance(text.value, str)
    }
    assert {"late", "duplicate", "decisions"} <= counted
    assert counted - {"early", "early_activation"} <= set(KNOWN_OUTCOMES)
