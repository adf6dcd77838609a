"""The files that bring up a cluster: valid by Ray's own checks, and saying the same as the code and each other."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from bandits.errors import BanditloopError
from serve_app import app
from serve_app.host.environment import CLUSTER_NODE
from serve_app.replica.metrics import LogState, Metrics, _Collector
from serve_app.settings import Settings
from serve_app.store.progress import LearningHealth, Stall
from serve_app.store.stats import Stats

ROOT = Path(__file__).resolve().parents[3]
HAPROXY = "RAY_SERVE_HAPROXY_BINARY_PATH"


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def test_the_cluster_is_one_that_ray_can_launch():
    prepared = prepare_config(read("ray_cluster.yaml"))
    validate_config(prepared)
    types = prepared["available_node_types"]
    assert {
        role: [name for name, each in types.items() if role in each["resources"]] for role in ROLES
    } == ROLES
    assert types["replay"]["min_workers"] == types["gpu"]["min_workers"] == 0
    for kind in ("head", "worker"):
        assert (
            ". ~/banditloop/deploy/cluster.env && . ~/secrets.env"
            in prepared[f"{kind}_start_ray_commands"][-1]
        )
    assert (
        "--autoscaling-config=~/ray_bootstrap_config.yaml"
        in prepared["head_start_ray_commands"][-1]
    )


ROLES = {"serve": ["serve"], "learner": ["serve"], "replay": ["replay"]}


def test_a_misspelt_key_would_be_refused():
    with pytest.raises(Exception, match="idle_timeout"):
        validate_config(prepare_config({**read("ray_cluster.yaml"), "idle_timeout": 5}))


def test_every_node_gets_the_environment_that_the_code_asks_for():
    lines = (ROOT / "deploy" / "cluster.env").read_text().splitlines()
    exported = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    assert exported.pop(HAPROXY) == "$(command -v banditloop-haproxy)"
    assert exported == CLUSTER_NODE
    for group in pods():
        (container,) = group["template"]["spec"]["containers"]
        plain = {each["name"]: each["value"] for each in container["env"] if "value" in each}
        assert plain.pop(HAPROXY).endswith("/banditloop-haproxy")
        assert plain == CLUSTER_NODE


def pods() -> list[dict[str, Any]]:
    cluster = read("deploy/rayservice.yaml")["spec"]["rayClusterConfig"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_kubernetes_gets_the_same_application_and_the_same_kinds_of_nodes():
    service = read("deploy/rayservice.yaml")["spec"]
    assert yaml.safe_load(service["serveConfigV2"]) == read("serve_config.yaml")
    types = read("ray_cluster.yaml")["available_node_types"]
    for group in pods()[1:]:
        resources = json.loads(json.loads(group["rayStartParams"]["resources"]))
        cpus = int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
        assert {"CPU": cpus, **resources} == types[group["groupName"]]["resources"]
    assert service["rayClusterConfig"]["gcsFaultToleranceOptions"]["redisAddress"]


@pytest.mark.filterwarnings(
    "ignore:The `metrics_interval_s` field:DeprecationWarning"
)  # what shall replace it is not read
def test_the_application_is_valid_and_is_built_from_its_file(tmp_path, monkeypatch):
    config = read("serve_config.yaml")
    schema = ServeDeploySchema.model_validate(config)
    (service,) = schema.applications
    rank = service.deployments[0]
    assert rank.max_queued_requests > 0
    assert rank.max_surge_percent > 0
    args = app.ClusterArgs(**service.args)
    assert not {"redis_url", "salt"} & set(args.settings)
    built: list[tuple[Settings, list[str]]] = []
    monkeypatch.setattr(
        app, "build_for_cluster", lambda s, specs: built.append((s, [each.name for each in specs]))
    )
    app.build(args)
    assert built[0][0].replica_cpus == 1
    assert built[0][1] == ["home"]


@pytest.mark.parametrize(
    ("settings", "target"),
    [
        ({"redis_url": None}, "redis_url"),
        ({"salt": None}, "salt"),
        ({"salt": "short"}, "salt"),
        ({"archive": None}, "archive"),
        ({}, "host"),
        ({"replicaz": 2}, "replicaz"),
    ],
)
def test_what_works_on_one_machine_only_is_refused_by_name(monkeypatch, settings, target):
    monkeypatch.setattr(app, "serve_host", lambda: "0.0.0.0")  # noqa: S104 - what is tested
    given = {"redis_url": "redis://127.0.0.1:1/0", "salt": "s" * 32, "archive": "none", **settings}
    with pytest.raises(app.StartupError) as refused:
        app.build(app.ClusterArgs(policies=[{"name": "home"}], settings=given))
    assert refused.value.target == target


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"policies": [{"name": "home", "flor": 1}]}, ["policies[0]", "did you mean floor?"]),
        (
            {"policies": [{"name": "home"}], "settings": {"replica": 1}},
            ["did you mean replicas?", "salt"],
        ),
        ({"policies": [{"name": "home"}], "settings": {"port": "many"}}, ["settings: port: "]),
        ({"polices": [{"name": "home"}]}, ["did you mean policies?", "settings"]),
    ],
)
def test_what_is_mistyped_in_the_applications_arguments_is_told_with_the_choices(args, says):
    with pytest.raises((BanditloopError, ValueError)) as caught:
        app.build(app.ClusterArgs(**args))
    for each in says:
        assert each in str(caught.value)


def test_the_alert_rules_ask_for_metrics_that_there_are_with_their_labels():
    """Of each metric in an expression: one that a replica's page has, and the labels that the rule sums by or names."""
    stats = Stats("1-0", 1, 1, "s", 1, {"refused_spec": 1}, columns=255, max_columns=256)
    learning = {"home": LearningHealth("stalled", Stall("1-0", "spec", "gone", 1))}
    metrics = Metrics("x")
    metrics.count("decisions", "home", "false")
    metrics.count("snapshot_failures", "home", "missing")
    registry = CollectorRegistry()
    registry.register(
        _Collector([metrics.sample()], {"home": stats}, {}, {"home": LogState(1, 2.0, 0)}, learning)
    )
    page = generate_latest(registry).decode()
    known = {
        s.name: s.labels for family in text_string_to_metric_families(page) for s in family.samples
    }
    rules = [rule for group in read("deploy/alerts.yaml")["groups"] for rule in group["rules"]]
    assert {"BanditloopLearningStalled", "BanditloopEntriesRefused"} <= {
        rule["alert"] for rule in rules
    }
    for rule in rules:
        [name] = re.findall(r"banditloop_\w+", rule["expr"])
        named = re.search(r"by \(([^)]*)\)", rule["expr"])[1].split(", ")
        named += re.findall(r"[{,]\s*(\w+)=", rule["expr"])
        assert set(named) <= set(known[name]), rule["alert"]
        assert set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))) <= set(named), rule[
            "alert"
        ]
