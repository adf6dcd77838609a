"""A cluster whose autoscaler (v2) adds and removes nodes: processes of this machine, by Ray's fake provider."""

import json
from typing import Any

import yaml
from cluster.base import BIN, RayCluster

HEAD_ID = "f" * 51 + "00000"
HEAD = "ray.head.default"
LISTS = (
    "setup_commands",
    "initialization_commands",
    "head_setup_commands",
    "worker_setup_commands",
)
LISTS += (
    "head_start_ray_commands",
    "worker_start_ray_commands",
    "rsync_exclude",
    "rsync_filter",
    "cluster_synced_files",
)


class AutoscaledCluster(RayCluster):
    """``types``: of nodes, as in ray_cluster.yaml; one that is idle for ``idle_s`` goes."""

    ready = "Ray runtime started"

    def __init__(self, types: dict[str, Any], *, idle_s: float = 6.0, **environment: str) -> None:
        super().__init__(
            **{
                "RAY_FAKE_CLUSTER": "1",
                "RAY_enable_autoscaler_v2": "1",
                "AUTOSCALER_UPDATE_INTERVAL_S": "1",
                "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
                "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
                **environment,
            }
        )
        self._head = types[HEAD]["resources"]
        self._config = self.folder / "cluster.yaml"
        self._config.write_text(yaml.safe_dump(self._launcher(types, idle_s)))

    def _launcher(self, types: dict[str, Any], idle_s: float) -> dict[str, Any]:
        return {
            "cluster_name": "fake",
            "max_workers": sum(each.get("max_workers", 0) for each in types.values()),
            "idle_timeout_minutes": idle_s / 60,
            "upscaling_speed": 100,
            "provider": {
                "type": "external",
                "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
                "launch_multiple": True,
                "head_node_id": HEAD_ID,
                "gcs_address": self.address,
                "disable_node_updaters": True,
            },
            "available_node_types": types,
            "head_node_type": HEAD,
            "auth": {},
            "file_mounts": {},
            **{name: [] for name in LISTS},
        }

    def command(self) -> list[str]:
        """``ray start`` of a head with an autoscaler."""
        resources = {**self._head}
        command = [
            str(BIN / "ray"),
            "start",
            "--head",
            "--block",
            f"--port={self.port}",
            "--disable-usage-stats",
        ]
        command += [f"--node-ip-address={self.host}", f"--dashboard-port={self.dashboard_port}"]
        command += [f"--num-cpus={resources.pop('CPU')}", f"--resources={json.dumps(resources)}"]
        command += [f"--autoscaling-config={self._config}", f"--temp-dir={self.folder / 'ray'}"]
        return [*command, f"--object-store-memory={128 * 2**20}"]
