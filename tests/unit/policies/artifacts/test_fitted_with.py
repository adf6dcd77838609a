"""What sources are fitted with, where it is not the usual: read, checked, and told by artifacts."""

import math
from dataclasses import fields
from typing import get_args, get_type_hints

import msgspec
import pytest
from support.small_ranking import crowds

from bandits.errors import ArtifactError
from policies.artifacts.fitted_with import FITTED_WITH, changes_of, changes_told, with_changes
from policies.training.fits import TrainConfig
from policies.training.train import run_training

CHANGES = {"ease": {"regularization": 50, "neighbours": 20}, "item_knn": {"weighting": "bm25"}}


def test_changes_are_read_and_found_again():
    config = with_changes(TrainConfig(), CHANGES)
    assert (config.ease.regularization, config.ease.neighbours) == (50.0, 20)
    assert config.item_knn.weighting == "bm25"
    assert config.als == TrainConfig().als
    assert changes_of(config, ["ease", "item_knn", "als", "popular"]) == CHANGES
    assert changes_of(config, ["als"]) == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"eaze": {}}, "eaze has nothing that it is fitted with: did you mean ease"),
        ({"ease": {"lambda": 3}}, "ease is not fitted with lambda: there are regularization"),
        ({"ease": {"neighbours": "many"}}, "ease.neighbours: .*int"),
        ({"item_knn": {"weighting": "bm52"}}, "item_knn.weighting: Invalid enum value 'bm52'"),
        ({"als": {"factors": 0}}, "als.factors: Expected `int` >= 1"),
        ({"deep": {"dropout": 1}}, "deep.dropout: Expected `float` < 1.0"),
        ({"gru4rec": {"epochs": 0}}, "gru4rec.epochs: Expected `int` >= 1"),
        ({"towers": {"learning_rate": math.nan}}, "towers.learning_rate: Expected `float` > 0.0"),
        ({"fm": {"factors": 10**9}}, "fm.factors: Expected `int` <= 256"),
        ({"slit": {"half_life": -1}}, "slit.half_life: Expected `float` > 0.0"),
        ({"content_tuned": {"steps": -1}}, "content_tuned.steps: Expected `int` >= 0"),
        ({"deepfm": {"hidden": [64, 0]}}, r"deepfm.hidden\[1\]: Expected `int` >= 1"),
        ({"sasrec": {"factors": 50, "heads": 4}}, "sasrec.heads: 4 heads do not divide 50"),
        ({"ncf": {"hidden": [64]}}, "ncf.hidden: two layers, or none for the product alone, not 1"),
        ({"trending": {"half_life_days": 0}}, "trending.half_life_days: "),
    ],
)
def test_what_no_source_is_fitted_with_is_refused_by_field(changes, said):
    with pytest.raises(ArtifactError, match=said):
        with_changes(TrainConfig(), changes)


def test_every_number_that_a_source_is_fitted_with_has_bounds():
    """No fit has to meet a width of 0 or a rate below it, whoever adds a number."""
    configs = get_type_hints(TrainConfig)
    for field in fields(TrainConfig):
        for name, kind in get_type_hints(configs[field.name], include_extras=True).items():
            held = getattr(getattr(TrainConfig(), field.name), name)
            if isinstance(held, int | float) and not isinstance(held, bool):
                bounds = [each for each in get_args(kind) if isinstance(each, msgspec.Meta)]
                assert bounds, f"{field.name}.{name}"


def test_an_artifact_tells_what_its_own_sources_were_fitted_with_and_nothing_usual():
    events = crowds(users=30)
    items = [{"id": item, "features": {}} for item in events.item_ids]
    config = with_changes(TrainConfig(), CHANGES)
    changed = run_training(events, items, sources=["item_knn"], config=config).artifact
    assert changes_told(changed) == {"item_knn": {"weighting": "bm25"}}
    usual = run_training(events, items, sources=["item_knn"]).artifact
    assert FITTED_WITH not in usual.created_with
    assert changes_told(usual) == changes_told(None) == {}
