"""Where in a cluster things run.

Node types say what they are for by a custom resource: serve, learner or replay.
"""

from typing import Any, Literal

Role = Literal["serve", "learner", "replay"]
SHARE = 0.001
"""Of such a resource, so that it says where and not how many."""


def on_node_for(role: Role) -> dict[str, Any]:
    """Options of an actor or task that put it on a node for ``role``.

    None where no node has or can have that resource.

    Nodes that an autoscaler may add count as well: its configuration lists their types.
    """
    import ray  # noqa: PLC0415 - a command may have to prepare the environment first

    possible = ray._private.state.state.get_max_resources_from_cluster_config() or {}  # noqa: SLF001 - no public way
    exists = role in ray.cluster_resources() or possible.get(role, 0) > 0
    return {"resources": {role: SHARE}} if exists else {}
