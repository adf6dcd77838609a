"""Two towers: what is served is what torch has fitted, and an item without events has a vector."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from bandits.errors import ArtifactError
from bandits.features.namespaces import CONTEXT
from policies.artifacts import source_artifact
from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import Artifact, TrainedSource
from policies.encoding import namespace_of
from policies.items.catalogue import Catalogue, Item
from policies.items.offering import Offering
from policies.sources import Candidates, SourceRequest, load_sources
from policies.sources.towers.live import LiveTowers, described_by
from policies.sources.towers.towers import ItemTower, UserTower, load_towers
from policies.training.content.descriptions import ContentConfig, describe
from policies.training.fits import TrainConfig, fit_source
from policies.training.neural.loop import one_thread
from policies.training.towers.fit import exported, fit_towers, make_network
from policies.training.towers.network import TowersConfig
from policies.training.towers.past import Bags, PastItems, mean_ndcg
from policies.training.training_data import Course, TrainingData, features_of

KINDS, EACH, USERS = 4, 10, 60
CONFIG = TowersConfig(
    factors=8,
    hidden=16,
    negatives=16,
    batch=64,
    epochs=40,
    patience=0,
    learning_rate=0.02,
    dropout=0.1,
    forget=0.1,
)
DAY = 86_400_000


def catalogue() -> tuple[dict, ...]:
    """Items of four kinds; of each, one has no event."""
    return tuple(
        {
            "id": f"{kind}-{n}",
            "features": {"kind": f"k{kind}", "price": 10.0 + n, "tags": ["a", f"t{n % 3}"]},
            "metadata": {"title": f"a thing of sort{kind}"},
        }
        for kind in range(KINDS)
        for n in range(EACH + 1)
    )


def make_data(*, seed: int = 0, contexts: bool = True, features: bool = True) -> TrainingData:
    """Users who each want one kind; the caller knows which group wants what."""
    rng = np.random.default_rng(seed)
    items = tuple(f"{kind}-{n}" for kind in range(KINDS) for n in range(EACH))
    rows = [np.sort(rng.choice(EACH, 6, replace=False)) + EACH * (u % KINDS) for u in range(USERS)]
    histories = Histories(
        items=items,
        users=tuple(f"u{user}" for user in range(USERS)),
        starts=np.arange(0, 6 * USERS + 1, 6),
        indices=np.concatenate(rows).astype(np.int32),
        weights=rng.choice([1.0, 3.0], 6 * USERS).astype(np.float32),
        times=rng.integers(0, 1000, 6 * USERS) * DAY,
    )
    return TrainingData(
        histories,
        describe(catalogue() if features else (), ContentConfig()),
        features_of(catalogue()) if features else {},
        {f"u{user}": {"group": f"g{user % KINDS}", "age": 30.0} for user in range(USERS)}
        if contexts
        else {},
    )


DATA = make_data()
TRAIN = TrainConfig(towers=CONFIG)


@cache
def fitted() -> TrainedSource:
    """What a training on the data makes."""
    return fit_source("towers", DATA, TRAIN, Course(seed=1))


def test_what_is_served_is_what_torch_computes() -> None:
    """Vectors of new items and of users, to 1e-5, also of a network that is far from its start."""
    rng = np.random.default_rng(3)
    described = torch.from_numpy(
        rng.normal(size=(len(DATA.histories.items), 128)).astype(np.float32)
    )
    network = make_network(DATA, CONFIG, described, 1)
    with torch.no_grad():
        for parameter in network.module.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3)
        network.module.own.zero_()
    network.module.eval()

    source = TrainedSource("towers", exported(network), {"most": 50, "recent": 3})
    tower, user = ItemTower.load(source, 9, 128), UserTower.load(source, 8)
    for place, item in enumerate(DATA.histories.items):
        made = tower.of(DATA.items[item], described[place].numpy())
        assert made is not None
        np.testing.assert_allclose(made, source.arrays["vectors"][place], atol=1e-5, rtol=1e-5)

    vectors = torch.from_numpy(source.arrays["vectors"])
    for at in network.past.rows[:40].tolist():
        bags = network.past.around(np.array([at]), 50)
        with torch.no_grad(), one_thread():
            want = network.user_vectors(vectors, bags, torch.from_numpy(network.past.users[[at]]))
        items = bags.items.numpy()
        context = DATA.contexts[DATA.histories.users[network.past.users[at]]]
        said = namespace_of(context, CONTEXT)
        made = user.of(source.arrays["vectors"][items], bags.weights.numpy(), said)
        np.testing.assert_allclose(made, want[0].numpy(), atol=1e-5, rtol=1e-4)


def test_the_same_seed_gives_the_same_bytes() -> None:
    short = TrainConfig(towers=replace(CONFIG, epochs=3))
    one, again, other = (fit_source("towers", DATA, short, Course(seed=seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(one.arrays[name], again.arrays[name]) for name in one.arrays)
    assert not np.array_equal(one.arrays["vectors"], other.arrays["vectors"])


def over(items: tuple[dict, ...], trained: TrainedSource | None = None) -> LiveTowers:
    """The source over a catalogue."""
    artifact = Artifact((), DATA.histories.items, {"towers": trained or fitted()})
    source = load_sources(artifact)["towers"]
    assert isinstance(source, LiveTowers)
    held = [
        Item(each["id"], features=each["features"], metadata=each["metadata"]) for each in items
    ]
    return source.over(Offering(Catalogue.put(held)))


def found_of(source: LiveTowers, asked: Callable[[int], SourceRequest]) -> list[int]:
    """Return how many of five items are of the kind that is meant, by kind."""
    return [
        sum(item.startswith(f"{kind}-") for item in source.propose(asked(kind), 5).ids)
        for kind in range(KINDS)
    ]


def by_history(kind: int) -> SourceRequest:
    return SourceRequest(history=(f"{kind}-0", f"{kind}-1"))


def by_context(kind: int) -> SourceRequest:
    return SourceRequest(context={"group": f"g{kind}", "device": "unknown"})


def test_a_history_and_a_context_each_find_the_kind() -> None:
    """Every fit finds a history's kind; with so few users, only some find that of a context alone.

    Which ones depends on how the processor rounds.
    """
    fits = [fit_source("towers", DATA, TRAIN, Course(seed=seed)) for seed in range(2, 7)]
    sources = [over(catalogue(), fit) for fit in (fitted(), *fits)]
    assert min(least for each in sources for least in found_of(each, by_history)) >= 4
    assert any(min(found_of(each, by_context)) >= 4 for each in sources)

    source = over(catalogue())
    assert source.propose(SourceRequest(context={"group": "never met"}), 5).ids == ()


def test_what_is_evaluated_is_what_is_served() -> None:
    """The scores of an evaluation are those of a request with the same context, before scaling."""
    model, live = load_towers(fitted(), len(DATA.histories.items)), over(catalogue())
    indices, weights = DATA.histories.row(0)
    for context in ({}, {"group": "g0"}, {"group": "g3", "age": 30.0}):
        asked = SourceRequest(context=context, profile=DATA.histories.profile("u0"))
        score = live.propose(asked, 1).score_items
        assert score is not None
        scaled = (
            model.raw_in(context, indices, weights) - fitted().scale.mean
        ) / fitted().scale.std
        np.testing.assert_allclose(score(DATA.histories.items), scaled, atol=1e-5)
    assert np.array_equal(model.raw_in({}, indices, weights), model.raw(indices, weights))


def test_an_item_without_events_is_found_by_what_is_said_of_it() -> None:
    """From the moment it is put, and no more when it is gone."""
    source = over(catalogue())
    assert source.known == KINDS * (EACH + 1)
    for kind in range(KINDS):
        new = [f"{each}-{EACH}" for each in range(KINDS)]
        score = source.propose(SourceRequest(history=(f"{kind}-0",)), 1).score_items
        assert score is not None
        assert int(np.argmax(score(new))) == kind

    assert f"0-{EACH}" not in over(catalogue()[:5]).propose(SourceRequest(history=("0-0",)), 50).ids


def test_what_is_written_and_read_again_answers_alike(tmp_path: Path) -> None:
    """Also an item without events: the encoder of texts is in the file, too."""
    artifact = Artifact((), DATA.histories.items, {"towers": fitted()})
    source_artifact.write(artifact, tmp_path)
    read = source_artifact.load(tmp_path).sources["towers"]
    assert read.metrics == fitted().metrics
    for one, two in zip(_answers(fitted()), _answers(read), strict=True):
        assert one.ids == two.ids
        assert np.array_equal(one.scores, two.scores)


def _answers(source: TrainedSource) -> list[Candidates]:
    live = over(catalogue(), source)
    return [live.propose(SourceRequest(history=(f"{kind}-3",)), 50) for kind in range(KINDS)]


def test_an_item_that_brings_a_vector_of_another_length_has_none() -> None:
    """What is wrong is said with the answer, and the others are proposed."""
    looks = [
        {**each, "vectors": {"look": [float(n % 7), 1.0, -1.0]}}
        for n, each in enumerate(catalogue())
    ]
    said = describe(looks, ContentConfig())
    data = replace(DATA, said=said)
    source = fit_towers(data, replace(CONFIG, epochs=1), ContentConfig(), Course())
    live = over(catalogue(), source)
    new = Item("new", features={"kind": "k1"}, vectors={"look": [1.0]})
    fine = Item("fine", features={"kind": "k1"}, vectors={"look": [1.0, 2.0, 3.0]})
    live = live.over(Offering(Catalogue.put([new, fine])))
    found = live.propose(SourceRequest(history=("1-0",)), 5)
    assert found.ids == ("fine",)
    assert "vectors.look has 1 numbers, those of the others 3" in found.trouble


def test_data_without_features_texts_and_contexts() -> None:
    """The rows of items alone: what is new has no vector, and a stranger no answer."""
    data = make_data(contexts=False, features=False)
    source = fit_towers(data, replace(CONFIG, epochs=2), ContentConfig(), Course())
    assert described_by(source) is None
    model = load_towers(source, len(data.histories.items))
    assert np.isfinite(model.raw(np.array([0]), np.ones(1, np.float32))).all()
    tower = ItemTower.load(source, 9, 0)
    assert tower.of({"kind": "k1"}, None) is None


def test_a_loss_that_is_no_number_stops_the_fit() -> None:
    with pytest.raises(ArtifactError, match=r"towers: .*no number"):
        fit_towers(DATA, replace(CONFIG, learning_rate=1e30), ContentConfig(), Course())


# --- what it is trained on


def past_of(rows: list[list[int]], *, timed: bool = True) -> PastItems:
    """Users' items, oldest first; the higher of two numbers came earlier."""
    ordered = [sorted(row) for row in rows]
    indices = np.array([item for row in ordered for item in row], np.int32)
    times = np.array([row.index(i) for row, own in zip(rows, ordered, strict=True) for i in own])
    return PastItems.of(
        Histories(
            items=tuple(map(str, range(100))),
            users=tuple(map(str, range(len(rows)))),
            starts=np.append(0, np.cumsum([len(row) for row in rows])).astype(np.int64),
            indices=indices,
            weights=np.ones(indices.size, np.float32),
            times=times.astype(np.int64) if timed else None,
        ),
        seed=0,
    )


def bags_of(past: PastItems, rows: list[int], before: int, after: int = 0) -> list[list[int]]:
    bags = past.around(np.array(rows), before, after)
    bounds = [*bags.starts.tolist(), len(bags.items)]
    return [bags.items[i:j].tolist() for i, j in pairwise(bounds)]


def test_what_came_before_is_the_users_own_in_order() -> None:
    """The first item is no row; the last one of some users is held out, and no part of a bag."""
    past = past_of([[5, 3, 9, 1], [7], [2, 8]])
    assert past.items.tolist() == [5, 3, 9, 1, 7, 2, 8]
    assert past.rows.tolist() + past.held_out.tolist() in ([1, 2, 3, 6], [1, 2, 6, 3])
    assert len(past.held_out) == 1
    assert bags_of(past, [3, 1, 6], 2) == [[3, 9], [5], [2]]
    last = past.held_out.tolist() == [3]
    assert bags_of(past, [1, 4], 50, 50) == [[5, 9] if last else [5, 9, 1], []]


def test_a_history_of_ten_thousand_and_of_one() -> None:
    """Only the last ones of a long history are looked at; of one item nothing is learned."""
    rows = [list(range(100)), [4]]
    past = past_of(rows)
    assert [len(bag) for bag in bags_of(past, [99, 50], 50)] == [50, 50]
    assert 100 not in past.rows


def test_ndcg_of_one_wanted_item() -> None:
    scores = torch.tensor([[9.0, 5.0, 7.0, 6.0], [1.0, 0.0, 0.0, 0.0]])
    bags = Bags(torch.tensor([0]), torch.ones(1), torch.tensor([0, 1]), torch.ones(1))
    # Of the first, item 0 is known; 2 is before 3. Of the second, 0 is the best.
    assert mean_ndcg(scores, torch.tensor([3, 0]), bags) == pytest.approx((1 / np.log2(3) + 1) / 2)
