"""Two towers, fitted by torch and served by ``policies.sources.towers``.

Yi, Yang, Hong, Cheng, Heldt, Kumthekar, Zhao, Wei & Chi 2019, "Sampling-bias-corrected neural
modeling for large corpus item recommendations", https://doi.org/10.1145/3298689.3346996: softmax
over the items of a batch, each logit less the log of how often its item is expected there.

Differs from the paper: how often that is, is counted, not estimated from a stream; some items are
drawn evenly beside those of the batch (Yang et al. 2020, https://doi.org/10.1145/3366424.3386195),
so that rare ones are told apart, too; a score is a product, not a cosine; a user has no row of its
own but is what the history says; and in each step some items stand by their features alone, as a
new item will (Volkovs, Yu & Poutanen 2017, "DropoutNet").
"""

from dataclasses import asdict
from typing import Any

import torch

from bandits.features.namespaces import CONTEXT, FEATURES
from policies.artifacts.source_artifact import TrainedSource
from policies.training.content.descriptions import ContentConfig
from policies.training.content.encoder import fit_encoder
from policies.training.content.fit import why_no_content
from policies.training.neural.loop import LoopConfig, fit_network, one_thread, own_random_numbers
from policies.training.towers.features import CodedFeatures
from policies.training.towers.network import TowersConfig, TwoTowers
from policies.training.towers.past import PastItems
from policies.training.training_data import Course, TrainingData


def fit_towers(
    data: TrainingData, config: TowersConfig, content: ContentConfig, course: Course
) -> TrainedSource:
    """Fit two towers, and make the vectors of the items with events.

    Args:
        data: histories, features of items and users, descriptions.
        config: see TowersConfig.
        content: how texts and the like become vectors.
        course: how the fit is to go.
    """
    arrays: dict[str, Any] = {}
    described = torch.zeros(len(data.histories.items), 0)
    encoder: dict[str, Any] = {}
    if not why_no_content(data.histories, data.said):
        fitted = fit_encoder(data.said, content, seed=course.seed)
        described = torch.from_numpy(fitted.vectors(data.said, data.histories.items))
        if described.shape[1]:
            arrays = {f"content_{name}": array for name, array in fitted.arrays.items()}
            encoder = dict(fitted.config)

    network = make_network(data, config, described, course.seed)
    with one_thread():
        events = len(network.past.rows)
        loop = LoopConfig(
            batch=config.batch,
            epochs=config.epochs,
            steps=max(1, config.budget // config.batch),
            patience=config.patience,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        gone = fit_network(network, events, loop, course)
        arrays |= exported(network)
    said_so = {**asdict(config), **({"content": encoder} if encoder else {})}
    return TrainedSource("towers", arrays, said_so, metrics=gone.metrics)


def make_network(
    data: TrainingData, config: TowersConfig, described: torch.Tensor, seed: int
) -> TwoTowers:
    """Return two towers with their first parameters, which are drawn.

    Args:
        data: what they are fitted on.
        config: see TowersConfig.
        described: float32[items, parts], the vectors of texts and the like.
        seed: of what is drawn.
    """
    histories = data.histories
    items = CodedFeatures.of(data.items, histories.items, FEATURES, config.most_features)
    users = CodedFeatures.of(data.contexts, histories.users, CONTEXT, config.most_features)
    # Whom a context tells of is known before the first item.
    past = PastItems.of(histories, seed=seed, also_first=bool(len(users.hashes)))
    with own_random_numbers(seed):
        return TwoTowers(config, past, items, users, described)


def exported(network: TwoTowers) -> dict[str, Any]:
    """Return the arrays that serving reads, float32.

    Args:
        network: a fitted one.
    """
    module = network.module
    with torch.no_grad():
        arrays = {
            "vectors": network.all_vectors(),
            "item_scales": torch.from_numpy(network.items.scales),
            "item_rows": module.item_rows,
            **_layers("item", module.item_hidden),
            "user_scales": torch.from_numpy(network.users.scales),
            "user_rows": module.user_rows,
            **_layers("user", module.user_hidden),
            "user_whole": module.user_whole,
            "user_latest": module.user_latest,
        }
        if len(module.item_content):
            arrays["item_content"] = module.item_content
    named = {name: array.detach().numpy().copy() for name, array in arrays.items()}
    return {**named, "item_hashes": network.items.hashes, "user_hashes": network.users.hashes}


def _layers(prefix: str, layers: torch.nn.Sequential) -> dict[str, torch.Tensor]:
    return {
        f"{prefix}_weight_1": layers[0].weight.T,
        f"{prefix}_bias_1": layers[0].bias,
        f"{prefix}_weight_2": layers[2].weight.T,
        f"{prefix}_bias_2": layers[2].bias,
    }
