"""A cluster of a fixed number of nodes (ray.cluster_utils.Cluster), any of which can be killed.

Run as a program it is that cluster: it prints the id of each node it adds, and on each line that it
reads kills a node.
"""

import json
import sys
from typing import Any

from cluster.base import ROOT, RayCluster
from cluster.load import eventually


class FixedCluster(RayCluster):
    """A head without cores, and a node for each of ``nodes``, which holds its resources."""

    ready = "all nodes are there"

    def __init__(self, nodes: list[dict[str, int]], **environment: str) -> None:
        super().__init__(**environment)
        self._nodes = nodes

    def command(self) -> list[str]:
        """The program below."""
        options = {
            "port": self.port,
            "host": self.host,
            "dashboard": self.dashboard_port,
            "folder": str(self.folder / "ray"),
            "nodes": self._nodes,
        }
        return [sys.executable, str(ROOT / "tests" / "cluster" / "fixed.py"), json.dumps(options)]

    def kill(self, node_id: str) -> None:
        """Kill a node with everything on it, as losing its machine would."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{node_id}\n".encode())
        self._process.stdin.flush()
        killed = f"killed {node_id}"
        eventually(lambda: killed in (self.folder / "output").read_text(), 20, killed)


def main(options: dict[str, Any]) -> None:
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - only in the program

    small = {"object_store_memory": 128 * 2**20}
    head = {
        "gcs_server_port": options["port"],
        "node_ip_address": options["host"],
        "temp_dir": options["folder"],
        "num_cpus": 0,
    }
    head |= {"dashboard_port": options["dashboard"], "include_dashboard": True, **small}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = {}
    for each in options["nodes"]:
        resources = {**each}
        node = cluster.add_node(num_cpus=resources.pop("CPU"), resources=resources, **small)
        nodes[node.node_id] = node
    print("all nodes are there", flush=True)
    for line in sys.stdin:
        cluster.remove_node(nodes.pop(line.strip()), allow_graceful=False)
        print(f"killed {line.strip()}", flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
