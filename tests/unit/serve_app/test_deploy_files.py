"""The files that bring up a cluster: valid for Ray, and in accord with the code and each other."""

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve._private.deploy_utils import get_app_code_version
from ray.serve.schema import ServeDeploySchema
from support.dockerfile import parse

from bandits.errors import BanditloopError
from serve_app import app
from serve_app.admin.wanted.on_cluster import config_again
from serve_app.host.environment import CLUSTER_NODE
from serve_app.office.names import CONSOLE_PREFIX, OFFICE_APP
from serve_app.replica.scrape import ServiceCollector
from serve_app.settings import Settings

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
    service, console = schema.applications
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

    monkeypatch.setattr(app, "build_office", lambda s, url: built.append((s, [url])))
    monkeypatch.setenv("BANDITLOOP_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("BANDITLOOP_SALT", "s" * 32)
    assert (console.name, console.route_prefix) == (OFFICE_APP, CONSOLE_PREFIX)
    app.build_console(app.ConsoleArgs(**console.args))
    assert built[1][0].archive == built[0][0].archive
    assert built[1][0].keys_file == built[0][0].keys_file
    assert built[1][1] == ["http://127.0.0.1:8000"]
    monkeypatch.delenv("BANDITLOOP_SALT")
    with pytest.raises(app.StartupError, match="BANDITLOOP_SALT"):
        app.build_console(app.ConsoleArgs(**console.args))


@pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning")
def test_a_config_that_is_deployed_again_is_the_same_with_another_edition():
    """So Serve builds that application anew, and no other."""
    config = read("serve_config.yaml")
    deployed = {each["name"]: {"deployed_app_config": each} for each in config["applications"]}
    details = {"applications": {**deployed, "run": {"deployed_app_config": None}}}
    again = config_again({**details, "target_capacity": 50.0}, "banditloop", "e1")
    before, after = map(ServeDeploySchema.model_validate, (config, again))
    assert after.target_capacity == 50.0
    assert app.ClusterArgs(**after.applications[0].args).edition == "e1"
    versions = [
        [get_app_code_version(each) for each in schema.applications] for schema in (before, after)
    ]
    assert versions[0][0] != versions[1][0]
    assert versions[0][1:] == versions[1][1:]
    del again["applications"][0]["args"]["edition"]
    assert again["applications"] == read("serve_config.yaml")["applications"]


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


def known_metrics() -> set[str]:
    """The series of a replica's page, by name."""
    suffix = {"counter": "_total", "histogram": "_bucket", "gauge": ""}
    families = ServiceCollector([], {}, {}, {}, {}).collect()
    return {f"{family.name}{suffix[family.type]}" for family in families}


def rules_of(name: str) -> list[dict[str, Any]]:
    return [rule for group in read(f"deploy/{name}.yaml")["groups"] for rule in group["rules"]]


def asked(expression: str) -> set[str]:
    """The metrics and the recorded series that an expression asks for."""
    return set(re.findall(r"[a-z_]*:?banditloop_\w+(?::\w+)?", expression))


def test_rules_and_dashboard_ask_for_metrics_that_there_are_and_for_all_that_is_recorded():
    known = known_metrics()
    recorded = {rule["record"] for rule in rules_of("recording")}
    for rule in rules_of("recording"):
        assert asked(rule["expr"]) <= known, rule["record"]
    for_alerts = set().union(*(asked(rule["expr"]) for rule in rules_of("alerts")))
    panels = [panel for panel in board()["panels"] if panel["type"] != "row"]
    for_panels = set().union(
        *(asked(target["expr"]) for panel in panels for target in panel["targets"])
    )
    assert for_alerts | for_panels <= known | recorded
    assert recorded <= for_alerts | for_panels


def test_an_alert_says_what_to_do_in_the_page_of_alerts():
    page = (ROOT / "docs" / "how-to" / "watch-a-service.md").read_text()
    rows = re.findall(r"^\| `(Banditloop\w+)` \| (\w+) \|", page, re.MULTILINE)
    assert rows == [(rule["alert"], rule["labels"]["severity"]) for rule in rules_of("alerts")]


def board() -> dict[str, Any]:
    return json.loads((ROOT / "deploy" / "grafana" / "banditloop.json").read_text())


def test_the_dashboard_has_panels_of_different_names_that_ask_one_source():
    panels = [panel for panel in board()["panels"] if panel["type"] != "row"]
    assert len({panel["title"] for panel in panels}) == len(panels) >= 20
    assert len({panel["id"] for panel in board()["panels"]}) == len(board()["panels"])
    sources = [panel["datasource"] for panel in panels]
    (given,) = read("deploy/grafana/datasource.yaml")["datasources"]
    assert {each["uid"] for each in sources} == {given["uid"]}


def test_the_composition_mounts_files_that_there_are_and_publishes_loopback_alone():
    services = read("deploy/compose.yaml")["services"]
    assert set(services) == {"banditloop", "valkey", "prometheus", "grafana"}
    volumes = read("deploy/compose.yaml")["volumes"]
    for service in services.values():
        for mount in service["volumes"]:
            source, target = mount.split(":")[:2]
            assert target.startswith("/")
            made_by_its_user = source == "./prometheus.key"
            assert source in volumes or made_by_its_user or (ROOT / "deploy" / source).is_file()
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert "deploy/prometheus.key" in (ROOT / ".gitignore").read_text().splitlines()
    assert services["valkey"]["networks"] == ["store"]
    assert read("deploy/compose.yaml")["networks"]["store"] == {"internal": True}


def test_prometheus_scrapes_the_service_of_the_composition():
    config = read("deploy/prometheus.yaml")
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["banditloop:8000"]}]
    prometheus = read("deploy/compose.yaml")["services"]["prometheus"]
    mounted = dict(reversed(each.split(":")[:2]) for each in prometheus["volumes"])
    assert mounted[job["authorization"]["credentials_file"]] == "./prometheus.key"
    assert {f"/etc/prometheus/{name}" for name in config["rule_files"]} <= set(mounted)


def test_the_image_is_given_what_the_wheel_is_made_of_and_starts_as_no_root():
    """What the context holds for it is what its instructions copy, and none of it is missing."""
    instructions = parse((ROOT / "deploy" / "Dockerfile").read_text())
    copied = [
        source
        for each in instructions
        if each.word == "COPY" and not each.option("from")
        for source in each.words()[:-1]
    ]
    assert all((ROOT / source).exists() for source in copied)
    ignored = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
    assert [line[1:] for line in ignored if line.startswith("!")] == copied
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found = config["tool"]["setuptools"]["packages"]["find"]
    folders = {folder.partition("/")[0] for folder in found["where"]} - {"."}
    packages = {name.rstrip("*") for name in found["include"]}
    made_of = {name for name in packages if (ROOT / name).is_dir()} | folders
    assert {*made_of, "pyproject.toml", "constraints.txt", "examples"} <= set(copied)

    last = {each.word: each.text for each in instructions}
    assert last["USER"] == "banditloop"
    assert json.loads(last["ENTRYPOINT"]) == ["banditloop"]
    served = read("deploy/compose.yaml")["services"]["banditloop"]
    assert served["ports"] == [f"127.0.0.1:{last['EXPOSE']}:{last['EXPOSE']}"]
    settings = [each for each in shlex.split(last["ENV"]) if each.startswith("BANDITLOOP_")]
    fields = {each.partition("=")[0].removeprefix("BANDITLOOP_").lower() for each in settings}
    given = {name.removeprefix("BANDITLOOP_").lower() for name in served["environment"]}
    assert fields | given <= set(Settings.model_fields)
