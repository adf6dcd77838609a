"""The network of ``bandits.rl.network`` in torch, as an RLModule of RLlib's new API stack.

A value head stands beside it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import nn

from bandits.types import Float32

MASKED = -1e9
"""The score of a place without an action: its probability is 0 in float32."""


class SharedScorer(TorchRLModule, ValueFunctionAPI):  # type: ignore[misc] # ray has no types
    """Scores every action with one network, whatever their number.

    The value of a decision is computed from the mean and the maximum over its actions. Observations
    are those of ``RecSession``; ``model_config`` is ``{"width": h}``.
    """

    def setup(self) -> None:
        """Make the layers. Scores start at 0, so the first policy is uniform."""
        features, width = self.observation_space["features"].shape[-1], self.model_config["width"]

        self.embed = nn.Linear(features, width)
        self.own = nn.Linear(width, width)
        self.others = nn.Linear(width, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.score.weight)

        self.value_embed = nn.Linear(features, width)
        self.value = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 1))
        self.action_dist_cls = TorchCategorical

    def scores(self, features: Any, mask: Any) -> Any:
        """Score the K places of each of B decisions.

        Args:
            features: float32[B, K, d], of the actions.
            mask: float32[B, K], 1 where there is an action, else 0.

        Returns:
            float32[B, K]; MASKED where there is no action.
        """
        hidden = torch.relu(self.embed(features))
        shared = _mean(hidden, mask)[:, None, :]
        scores = self.score(torch.relu(self.own(hidden) + self.others(shared))).squeeze(-1)
        return torch.where(mask > 0, scores, MASKED)

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        features, mask = _parts(batch)
        return {Columns.ACTION_DIST_INPUTS: self.scores(features, mask)}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Any:  # noqa: ARG002 - RLlib's
        """Return what the rest of each session is expected to earn, float32[B].

        Args:
            batch: The observations of B decisions, under ``Columns.OBS``.
            embeddings: RLlib's, of the observations; not looked at.
        """
        features, mask = _parts(batch)
        hidden = torch.relu(self.value_embed(features))
        most = torch.where(mask[:, :, None] > 0, hidden, 0.0).amax(dim=1)
        return self.value(torch.cat([_mean(hidden, mask), most], dim=-1)).squeeze(-1)

    def arrays(self) -> Mapping[str, Float32]:
        """Return the scorer's weights as ``bandits.rl.network`` names them; no value head."""
        weights = {
            "embed": self.embed.weight.T,
            "embed_bias": self.embed.bias,
            "own": self.own.weight.T,
            "others": self.others.weight.T,
            "bias": self.own.bias,
            "score": self.score.weight[0],
        }
        return {
            name: np.ascontiguousarray(tensor.detach().numpy(), np.float32)
            for name, tensor in weights.items()
        }


def _parts(batch: dict[str, Any]) -> tuple[Any, Any]:
    return batch[Columns.OBS]["features"], batch[Columns.OBS]["mask"].float()


def _mean(hidden: Any, mask: Any) -> Any:
    """Return the mean over the actions there are: [B, h]."""
    return (hidden * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1.0)
