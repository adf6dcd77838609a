"""The namespaces that a policy's features are in; their names are hashed, so they stay."""

from typing import Literal, get_args

NamespaceName = Literal["context", "item", "features", "scores"]
NAMESPACES: tuple[NamespaceName, ...] = get_args(NamespaceName)

CONTEXT: NamespaceName = "context"
"""The features that all actions of a decision share."""
ITEM: NamespaceName = "item"
"""An action's own indicator: its id."""
FEATURES: NamespaceName = "features"
"""An action's features, from the catalogue or the request."""
SCORES: NamespaceName = "scores"
"""The sources' scores of an action."""
