"""Where in a cluster things run.

Node types say what they are for by a custom resource: serve, learner or replay.
"""

from typing import Any, Literal

Role = Literal["serve", "learner", "replay"]
SHARE = 0.001
"""How much of such a resource an actor takes: so little that it says where and not how many."""


def on_node_for(role: Role) -> dict[str, Any]:
    """Return the options of an actor or task that put it on a node for ``role``.

    There are none where no node has that resource, and no node that an autoscaler may add would
    have it: the autoscaler's configuration lists their types.
    """
    import ray  # noqa: PLC0415 - a command may have to prepare the environment first

    state = ray._private.state.state  # noqa: SLF001 - there is no public way
    possible = state.get_max_resources_from_cluster_config() or {}
    exists = role in ray.cluster_resources() or possible.get(role, 0) > 0
    return {"resources": {role: SHARE}} if exists else {}
