"""Item factors of new items, solved from their first events: beside training ALS again.

Run: python benchmarks/sources/item_fold_in.py

MovieLens 100K without some of its items; these then get their first events back. For each user who
took to one later: its place among all items that the user had not. docs/decisions/refresh.md says
what came of it.
"""

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.data.coded import CodedEvents
from policies.sources.cf import FoldIn
from policies.training.cf import AlsConfig, fit_als
from policies.training.histories import histories_of
from simulator.worlds.demo import load_world

FIRST = (1, 2, 5, 10, 20)
"""First events of each new item that are known."""
SHARE, LEAST = 0.15, 40
"""The share of the items with so many events that are new."""
PROPOSED = 30


class Als:
    """ALS of some events: factors of items, of users, and what each user had."""

    def __init__(self, events: CodedEvents, seed: int) -> None:
        config = AlsConfig()
        histories = histories_of(events)
        source = fit_als(histories, config, seed=seed, step=lambda *_: None)
        self.items = np.asarray(source.arrays["item_factors"], np.float32)
        fold_in = FoldIn(self.items, config.alpha, config.regularization)
        self.had = [histories.row(user) for user in range(len(histories.users))]
        self.users = np.stack([fold_in.encode(at, self.items[at], by) for at, by in self.had])
        self.user_row = {user: row for row, user in enumerate(histories.users)}
        self.item_row = {item: row for row, item in enumerate(histories.items)}

    def solved(
        self, users: list[int], weights: NDArray[Any], regularization: float
    ) -> NDArray[np.float32]:
        """Return an item's factors: equation 5 of Hu, Koren & Volinsky 2008."""
        rows, confidence = self.users[users], np.float32(AlsConfig().alpha) * weights
        system = self.users.T @ self.users + regularization * np.eye(self.users.shape[1])
        system = system + rows.T @ (rows * (confidence - 1)[:, None])
        return np.asarray(np.linalg.solve(system, confidence @ rows), np.float32)


def main() -> None:
    """Print a row for each number of first events."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--regularization", type=float, default=AlsConfig().regularization)
    options = parser.parse_args()

    events = load_world().train_events
    rows: dict[int, list[list[float]]] = {}
    for seed in range(options.seeds):
        for first, figures in one_seed(events, seed, options.regularization):
            rows.setdefault(first, []).append(figures)
    print("first  median place (solved, trained again)  among 30 (solved, trained again)")
    for first, figures in rows.items():
        solved, again, hit, hit_again = np.mean(figures, axis=0)
        print(f"{first:5}  {solved:8.0f} {again:8.0f}  {hit:8.4f} {hit_again:8.4f}")


def one_seed(events: CodedEvents, seed: int, regularization: float) -> Any:
    """Yield the figures of each number of first events."""
    counts = np.bincount(events.item, minlength=len(events.item_ids))
    enough = np.flatnonzero(counts >= LEAST)
    new = np.random.default_rng(seed).choice(enough, int(SHARE * len(enough)), replace=False)
    is_new = np.isin(events.item, new)
    before = Als(events.select(~is_new).compact(), seed)

    for first in FIRST:
        factors, later, known = [], [], np.zeros(len(events), np.bool_)
        for item in new.tolist():
            at = np.flatnonzero(events.item == item)
            at = at[np.argsort(events.time[at], kind="stable")]
            known[at[:first]] = True
            names = [events.user_ids[user] for user in events.user[at].tolist()]
            took = [n for n in range(first) if names[n] in before.user_row]
            users = [before.user_row[names[n]] for n in took]
            factors.append(before.solved(users, events.weight[at[took]], regularization))
            later += [
                (len(factors) - 1, events.item_ids[item], names[n])
                for n in range(first, len(at))
                if names[n] in before.user_row and events.weight[at[n]] >= 1
            ]
        again = Als(events.select(~is_new | known).compact(), seed)
        yield first, _figures(before, np.stack(factors), again, later)


def _figures(
    before: Als, factors: NDArray[Any], again: Als, later: list[tuple[int, str, str]]
) -> list[float]:
    places = []
    for number, item, user in later:
        row = before.user_row[user]
        scores = before.items @ before.users[row]
        scores[before.had[row][0]] = -np.inf
        every = np.concatenate([scores, factors @ before.users[row]])
        solved = int((every > every[len(scores) + number]).sum())

        row = again.user_row[user]
        scores = again.items @ again.users[row]
        own = scores[again.item_row[item]]
        scores[again.had[row][0]] = -np.inf
        places.append((solved, int((scores > own).sum())))
    found = np.array(places)
    return [*np.median(found, axis=0), *(found < PROPOSED).mean(axis=0)]


if __name__ == "__main__":
    main()
