"""The namespaces that a policy's features are in; their names are hashed, so they stay."""

from typing import Literal, get_args

NamespaceName = Literal["context", "item", "features", "scores"]
NAMESPACES: tuple[NamespaceName, ...] = get_args(NamespaceName)

CONTEXT: NamespaceName = "context"
"""What all actions of a decision share."""
ITEM: NamespaceName = "item"
"""An action's own indicator: its id."""
FEATURES: NamespaceName = "features"
"""What a catalogue or a request says of an action."""
SCORES: NamespaceName = "scores"
"""What the sources say of an action."""
