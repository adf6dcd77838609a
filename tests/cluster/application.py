"""The production application, cut to the size of one machine: the file users deploy, with few values changed."""

import copy
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
QUICK = {
    "upscale_delay_s": 1,
    "downscale_delay_s": 3,
    "look_back_period_s": 1,
    "metrics_interval_s": 0.5,
}
SPEC = {"name": "home", "learner": {"kind": "ridge"}, "join": {"window_s": 1, "default_reward": 0}}


def application(
    folder: Path, port: int, policies: list[Any], *, replicas: tuple[int, int], **settings: Any
) -> dict[str, Any]:
    """``serve_config.yaml`` on loopback, with ``replicas`` from … to …, and quick to scale.

    HAProxy on the head alone, because all nodes are one machine, which has each port once.
    """
    config = copy.deepcopy(yaml.safe_load((ROOT / "serve_config.yaml").read_text()))
    config["proxy_location"] = "HeadOnly"
    config["http_options"] = {"host": "127.0.0.1", "port": port}
    service, _console = config["applications"]
    config["applications"] = [service]
    service["args"]["policies"] = policies
    service["args"]["settings"] |= {
        "archive": str(folder / "archive"),
        "learner_cpus": 0,
        **settings,
    }
    del service["args"]["settings"]["keys_file"]
    (rank,) = service["deployments"]
    least, most = replicas
    rank["autoscaling_config"] |= {
        "min_replicas": least,
        "max_replicas": most,
        "target_ongoing_requests": 3,
        **QUICK,
    }
    return config
