"""Every accepted set of VW's arguments learns, on worlds of known truth.

The sets are generated from the table of options.

Half of it is told from what the model makes of rewards of actions chosen uniformly, so that no luck
of exploring is in it: 600 of three actions, whose means are 0.3 apart at least. That is 6 standard
errors of the difference of two means of 200 rewards of 0 or 1 (0.05): a learner of means would be
wrong once in 1e9 worlds. VW's learners forget, more or less: of the sets that are accepted none was
wrong in any world that was tried.
"""

import itertools
import os
from collections.abc import Iterator

import numpy as np
import pytest
from support.strategies import THOROUGH

from bandits.errors import SpecError
from bandits.exploration import EpsilonGreedy, Softmax, SquareCB, VwExploration
from bandits.types import ActionSet, Context, Interaction, check_pmf
from bandits.vw.accepted_arguments import (
    ACCEPTED,
    DEFAULT_OPTIMISER,
    EXPLORERS,
    INTERACTIONS,
    OPTIMISERS,
    SPECIAL,
    check_arguments,
)
from bandits.vw.config import VwConfig
from policies.blend import load_policy, make_learner
from policies.features import featurise
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec, spec_of

WITH = {
    "regcb": "--cb_min_cost -1 --cb_max_cost 0 --mellowness 0.01",
    "cover": "--psi 0.05",
    "sgd": "--learning_rate 0.05",
}
VALUES = {  # where the ends of what is accepted are not what to try
    "bit_precision": ["8", "14"],
    "random_seed": ["7"],
    "first": ["1", "50"],
    "gamma_scale": ["10", "1000"],
    "quadratic": ["ci", "::"],
    "cubic": ["cci"],
    "interactions": ["ci", "cci", "cici"],
    "ignore_linear": ["c"],
    "bag": ["2", "8"],
    "cover": ["2", "8"],
    "rnd": ["1", "3"],
}
WORLDS = [(0.1, 0.8, 0.3), (0.5, 0.9, 0.6)]
SURE = [False, True] if THOROUGH else [False]
"""Whether the reward is the mean itself, without chance: then what VW adapts to is no noise."""
ROWS = 600
IDS = tuple("abcdefghijkl")
FEATURES = {
    k: featurise(PolicySpec("p"), Catalogue(), {"hour": "9"}, IDS[:k], None, {})
    for k in (1, 2, 3, 12)
}


def written(name: str) -> list[str]:
    """An option with each value to try, and what it needs."""
    option = ACCEPTED[name]
    values = (
        list(option.words)
        or VALUES.get(name)
        or ([""] if np.isnan(option.low) else [option.low, option.high])
    )
    texts = [
        f"--{name} {value:g}" if isinstance(value, float | int) else f"--{name} {value}"
        for value in values
    ]
    return [f"{text} {WITH.get(name, '')}".strip() for text in texts]


def sets() -> list[str]:
    """Explorations x kinds of labels x optimisers.

    And beside each exploration each other option at both its ends.
    """
    explorers = ["", *(written(name)[-1] for name in (*EXPLORERS, *SPECIAL))]
    optimisers = [
        "",
        *(written(name)[0] for name in OPTIMISERS),
        " ".join(f"--{each}" for each in DEFAULT_OPTIMISER),
    ]
    types = ["", *(f"--cb_type {word}" for word in ACCEPTED["cb_type"].words)]
    found = [" ".join(parts) for parts in itertools.product(explorers, types, optimisers)]
    for name, option in ACCEPTED.items():
        if name in {
            "cb_explore_adf",
            "cb_type",
            "cb_min_cost",
            "cb_max_cost",
            *OPTIMISERS,
            *DEFAULT_OPTIMISER,
        }:
            continue
        parent = (
            "" if option.of is None or option.of in {*EXPLORERS, *SPECIAL} else f"--{option.of}"
        )
        found += [f"{explorer} {parent} {text}" for explorer in explorers for text in written(name)]
    return list(
        dict.fromkeys(
            " ".join(each.split()) for each in found if len(set(each.split())) == len(each.split())
        )
    )


def accepted() -> Iterator[str]:
    for args in sets():
        try:
            check_arguments(f"--cb_explore_adf {args}", own_exploration=True)
        except SpecError:
            continue
        yield args


ALL = list(accepted())
EVERY = 1 if os.environ.get("BANDITLOOP_EVERY_ARGUMENT") else 7 if THOROUGH else 29
TRIED = ALL[::EVERY]


def spec_with(args: str) -> PolicySpec:
    bits = "" if "bit_precision" in args else "-b 12 "
    return PolicySpec(
        "p", learner=VwConfig(f"--cb_explore_adf {bits}{args}"), exploration=VwExploration()
    )


def interaction(
    rng: np.random.Generator,
    features: tuple[Context, ActionSet],
    means: np.ndarray,
    *,
    sure: bool = False,
) -> Interaction:
    context, actions = features
    chosen = int(rng.integers(len(actions)))
    reward = float(means[chosen]) if sure else float(rng.random() < means[chosen])
    return Interaction("e", 0, context, actions, chosen, 1 / len(actions), reward)


def test_the_sets_are_all_there() -> None:
    options = {
        word.removeprefix("--") for args in ALL for word in args.split() if word.startswith("--")
    }
    assert options | {"cb_explore_adf", *INTERACTIONS} >= ACCEPTED.keys()
    assert len(ALL) > 400


@pytest.mark.parametrize("args", TRIED)
def test_an_accepted_set_gives_a_pmf_and_finds_the_best_action(args: str) -> None:
    """PMFs of 1, 2, 3 and 12 actions, of a model without rows, with one, and with many."""
    spec, rng = spec_with(args), np.random.default_rng(4)
    learner, means = make_learner(spec, salt=b"x"), np.linspace(0.1, 0.9, 12)
    for taught in range(202):
        if taught in {0, 1, 201}:
            policy = load_policy(spec, learner.snapshot("0-0"))
            for features in FEATURES.values():
                check_pmf(policy.pmf(*features))
        learner.learn([interaction(rng, FEATURES[int(rng.choice([1, 2, 3, 12]))], means)])
    for seed, world, sure in itertools.product(range(2 if THOROUGH else 1), WORLDS, SURE):
        assert_best(args, world, seed, sure=sure)


def assert_best(args: str, world: tuple[float, ...], seed: int, *, sure: bool) -> None:
    spec, rng, means = spec_with(args), np.random.default_rng([seed, 7]), np.roll(world, seed)
    learner = make_learner(spec, salt=b"x")
    # it is not wrong, but unsure for longer: that is its exploration
    rows = 5 * ROWS if "regcb" in args else ROWS
    learner.learn([interaction(rng, FEATURES[3], means, sure=sure) for _ in range(rows)])
    pmf = load_policy(spec, learner.snapshot("0-0")).pmf(*FEATURES[3])
    best = int(np.argmax(means))
    assert pmf[best] > np.delete(pmf, best).max() + 1e-3, (args, world, seed, pmf)


REFUSED = [
    "--squarecb --elim",
    "--regcb",
    "--regcb --cb_min_cost 0 --cb_max_cost 1",
    "--regcb --cb_min_cost -1",
    "--regcb --cb_min_cost -1 --cb_max_cost 0 --coin --mellowness 0.01",
    "--cb_type sm",
    "--squarecb --cb_type dr",
    "--cb_type ips",
    "--cb_type dm --softmax",
    "--cover 3",
    "--cover 3 --psi 1",
    "--explore_eval",
    "--loss_function hinge",
    "--loss_function poisson",
    "--loss_function logistic",
    "--bag 3 --nn 3",
    "--nn 3",
    "--cover 3 --psi 0.01 --power_t 0.3",
    "--bag 3 --boosting 2",
    "--rnd 3 --boosting 2",
    "--freegrad --squarecb",
    "--freegrad --synthcover",
    "--sgd",
    "--adaptive",
    "--learning_rate 0",
    "--l1 1",
    "--l2 5",
    "-b 1",
    "--automl 2",
    "--cb_dro --cb_type ips",
    "--bag 3 --cover 3 --psi 0.01",
    "--epsilon 1",
    "--hash all",
    "--lambda 2",
    "--ftrl --learning_rate 0.1",
]


@pytest.mark.parametrize("args", REFUSED)
def test_what_was_found_not_to_learn_or_to_change_nothing_is_refused_by_name(args: str) -> None:
    raw = {
        "name": "p",
        "learner": {"kind": "vw", "args": f"--cb_explore_adf {args}"},
        "exploration": {"kind": "vw"},
    }
    with pytest.raises(SpecError) as caught:
        spec_of(raw)
    named = [
        word.lstrip("-")
        for word in args.split()
        if word.startswith("-") and not word[1:2].isdigit()
    ]
    assert caught.value.target == "learner.args"
    assert any(name in caught.value.message for name in named)


LIVE = [
    "",
    "--softmax --lambda 10",
    "--squarecb",
    "--bag 3",
    "--rnd 3",
    "--first 100",
    "--cb_type dr",
    "--synthcover",
]
LIVE += [
    "--cover 3 --psi 0.05",
    "--regcb --cb_min_cost -1 --cb_max_cost 0 --mellowness 0.01",
    "--epsilon_decay",
    "--cb_dro",
]


@pytest.mark.parametrize("args", LIVE)
def test_it_finds_the_best_action_by_its_own_choices(args: str) -> None:
    """As it is served, published every 20 decisions, with the spec's floor raised to 0.1.

    So each action is tried 33 times in 1,000 at the least; the others' mean is below the best's by
    0.5, that is 5 standard errors of a mean of 33. Three worlds: a false alarm in 1e-6.
    """
    for seed in range(3 if THOROUGH else 1):
        rng, means = np.random.default_rng([seed, 9]), np.roll(WORLDS[0], seed)
        spec = PolicySpec(
            "p", learner=spec_with(args).learner, exploration=VwExploration(), floor=0.1
        )
        assert_found(spec, rng, means)


@pytest.mark.parametrize("exploration", [EpsilonGreedy(), Softmax(0.1), SquareCB()])
@pytest.mark.parametrize("args", ["", "--noconstant", "-q ci", "--sgd -l 0.05"])
def test_so_does_an_exploration_of_this_project(
    args: str, exploration: EpsilonGreedy | Softmax | SquareCB
) -> None:
    check_arguments(f"--cb_explore_adf {args}", own_exploration=False)
    spec = PolicySpec("p", learner=spec_with(args).learner, exploration=exploration, floor=0.1)
    assert_found(spec, np.random.default_rng(9), np.array(WORLDS[0]))


def assert_found(spec: PolicySpec, rng: np.random.Generator, means: np.ndarray) -> None:
    learner, (context, actions) = make_learner(spec, salt=b"x"), FEATURES[3]
    for _ in range(50):
        policy = load_policy(spec, learner.snapshot("0-0"))
        pmf = check_pmf(policy.pmf(context, actions))
        chosen = rng.choice(3, size=20, p=pmf)
        rewards = rng.random(20) < means[chosen]
        learner.learn(
            [
                Interaction("e", 0, context, actions, int(each), float(pmf[each]), float(reward))
                for each, reward in zip(chosen, rewards, strict=True)
            ]
        )
    pmf = load_policy(spec, learner.snapshot("0-0")).pmf(context, actions)
    assert int(np.argmax(pmf)) == int(np.argmax(means)), pmf
    assert pmf.max() > np.sort(pmf)[1] + 0.01
