"""What family_peers.py has the libraries do, in their own environment: each fits, and says who gets what.

Run by family_peers_env.py. It reads ``[name, arguments]`` a line and answers ``[seconds of the
processor in the fit, the ten best items of each test user]``, or a scorer's answers in their place. What it is fitted on lies in its
folder: see family_data.py.
"""

import contextlib
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

BEST = 10
PACKAGES = ("RecTools", "recbole", "torch-rechub", "wsknn", "torch", "numpy", "pytorch-lightning")


class Data:
    """Who interacted with what, by number, each item once for a user, oldest first."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        arrays = load_file(folder / f"{name}.safetensors")
        self.user, self.item, self.time = arrays["user"], arrays["item"], arrays["time"]
        self.tested = arrays["tested"]
        self.user_features = arrays["user_features"]
        self.item_features = arrays["item_features"]
        self.users, self.items = len(self.user_features), len(self.item_features)
        self.starts = np.searchsorted(self.user, np.arange(self.users + 1))

    def history(self, user: int) -> np.ndarray:
        """Return a user's items, oldest first."""
        return self.item[self.starts[user] : self.starts[user + 1]]


Answer = tuple[float, Any]


def versions(_: Path) -> Answer:
    """What it is that is measured."""
    return 0.0, {name: version(name) for name in PACKAGES}


@contextlib.contextmanager
def processor_time() -> Iterator[list[float]]:
    """Measure what runs inside, on all threads."""
    spent: list[float] = []
    started = time.process_time()
    yield spent
    spent.append(time.process_time() - started)


# --- RecTools


def sasrec(folder: Path, data: str, seed: int, **config: Any) -> Answer:
    """RecTools' SASRec."""
    from pytorch_lightning import seed_everything  # noqa: PLC0415
    from rectools.models import SASRecModel  # noqa: PLC0415
    from rectools.models.nn.item_net import IdEmbeddingsItemNet  # noqa: PLC0415

    seed_everything(seed)
    model = SASRecModel(item_net_block_types=(IdEmbeddingsItemNet,), **config)
    return _rectools(model, Data(folder, data))


def dssm(folder: Path, data: str, seed: int, **config: Any) -> Answer:
    """RecTools' two towers, of the features of users and items."""
    from pytorch_lightning import seed_everything  # noqa: PLC0415
    from rectools.models import DSSMModel  # noqa: PLC0415

    seed_everything(seed)
    return _rectools(DSSMModel(loggers=False, **config), Data(folder, data), features=True)


def _rectools(model: Any, data: Data, *, features: bool = False) -> Answer:
    import pandas as pd  # noqa: PLC0415
    from rectools.dataset import Dataset  # noqa: PLC0415

    events = pd.DataFrame(
        {
            "user_id": data.user,
            "item_id": data.item,
            "weight": 1.0,
            "datetime": pd.to_datetime(data.time, unit="ms"),
        }
    )
    described: dict[str, Any] = {}
    if features:
        for kind, codes, seen in (
            ("user", data.user_features, data.user),
            ("item", data.item_features, data.item),
        ):
            # Every column is a feature of categories; the id is one more.
            known = np.unique(seen)
            parts = [
                pd.DataFrame({"id": known, "feature": f"f{number}", "value": column[known]})
                for number, column in enumerate(codes.T)
            ]
            parts.append(pd.DataFrame({"id": known, "feature": "id", "value": known}))
            described[f"{kind}_features_df"] = pd.concat(parts)
            described[f"cat_{kind}_features"] = [f"f{n}" for n in range(codes.shape[1])] + ["id"]
    dataset = Dataset.construct(events, **described)

    with processor_time() as spent:
        model.fit(dataset)
    found = model.recommend(data.tested, dataset, k=BEST, filter_viewed=True)
    by_user = found.sort_values("rank").groupby("user_id")["item_id"].apply(list)
    return spent[0], [[int(item) for item in by_user.get(user, [])] for user in data.tested]


# --- RecBole


def gru4rec(folder: Path, data: str, seed: int, **config: Any) -> Answer:
    """RecBole's GRU4Rec."""
    given = Data(folder, data)
    model, dataset, seconds = _recbole("GRU4Rec", given, seed, config)
    most = config["MAX_ITEM_LIST_LENGTH"]
    code_of = dataset.field2token_id["item_id"]
    codes = np.array([code_of.get(str(item), 0) for item in range(given.items)])

    def scores(users: np.ndarray) -> torch.Tensor:
        from recbole.data.interaction import Interaction  # noqa: PLC0415

        rows = [codes[given.history(user)][-most:] for user in users]
        lists = np.zeros((len(rows), most), np.int64)
        for at, row in enumerate(rows):
            lists[at, : len(row)] = row
        return model.full_sort_predict(
            Interaction(
                {
                    "item_id_list": torch.from_numpy(lists),
                    "item_length": torch.tensor([len(row) for row in rows]),
                }
            )
        ).view(len(rows), -1)[:, torch.from_numpy(codes)]

    return seconds, _best(given, scores)


def multidae(folder: Path, data: str, seed: int, **config: Any) -> Answer:
    """RecBole's denoising autoencoder."""
    from recbole.data.interaction import Interaction  # noqa: PLC0415

    given = Data(folder, data)
    model, dataset, seconds = _recbole("MultiDAE", given, seed, config)
    users_of = dataset.field2token_id["user_id"]
    code_of = dataset.field2token_id["item_id"]
    codes = torch.tensor([code_of.get(str(item), 0) for item in range(given.items)])

    def scores(users: np.ndarray) -> torch.Tensor:
        rows = torch.tensor([users_of[str(user)] for user in users])
        found = model.full_sort_predict(Interaction({"user_id": rows}))
        return found.view(len(rows), -1)[:, codes]

    return seconds, _best(given, scores)


def neumf(folder: Path, data: str, seed: int, **config: Any) -> Answer:
    """RecBole's neural collaborative filtering."""
    from recbole.data.interaction import Interaction  # noqa: PLC0415

    given = Data(folder, data)
    model, dataset, seconds = _recbole("NeuMF", given, seed, config)
    users_of = dataset.field2token_id["user_id"]
    code_of = dataset.field2token_id["item_id"]
    codes = torch.tensor([code_of.get(str(item), 0) for item in range(given.items)])

    def scores(users: np.ndarray) -> torch.Tensor:
        rows = torch.tensor([users_of[str(user)] for user in users])
        return model.predict(
            Interaction(
                {
                    "user_id": rows.repeat_interleave(len(codes)),
                    "item_id": codes.repeat(len(rows)),
                }
            )
        ).view(len(rows), -1)

    return seconds, _best(given, scores)


def _recbole(name: str, data: Data, seed: int, asked: dict[str, Any]) -> tuple[Any, Any, float]:
    """Return a fitted model and its data set, with the seconds that the fit took."""
    from recbole.config import Config  # noqa: PLC0415
    from recbole.data import create_dataset  # noqa: PLC0415
    from recbole.data.utils import create_samplers, get_dataloader  # noqa: PLC0415
    from recbole.utils import get_model, get_trainer, init_seed  # noqa: PLC0415

    home = data.folder / "recbole" / data.name
    home.mkdir(parents=True, exist_ok=True)
    with (home / f"{data.name}.inter").open("w") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        # Only the order counts, and a float32 holds no milliseconds.
        for at, (user, item) in enumerate(zip(data.user, data.item, strict=True)):
            file.write(f"{user}\t{item}\t{at}\n")

    config = Config(
        model=name,
        dataset=data.name,
        config_dict={
            "data_path": str(home.parent),
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "eval_args": {"split": {"RS": [1, 0, 0]}, "group_by": "user", "order": "TO"},
            "use_gpu": False,
            "seed": seed,
            "checkpoint_dir": str(home / "saved"),
            "show_progress": False,
            **asked,
        },
    )
    init_seed(seed, reproducibility=True)
    torch.use_deterministic_algorithms(mode=False)
    dataset = create_dataset(config)
    built = dataset.build()
    sampler, *_ = create_samplers(config, dataset, built)
    rows = get_dataloader(config, "train")(config, built[0], sampler, shuffle=True)

    init_seed(seed, reproducibility=True)
    model = get_model(name)(config, rows._dataset)  # noqa: SLF001 - as its quick_start does
    trainer = get_trainer(config["MODEL_TYPE"], name)(config, model)
    with processor_time() as spent:
        trainer.fit(rows, None, saved=False, show_progress=False)
    model.eval()
    return model, dataset, spent[0]


def _best(
    data: Data, scores: Callable[[np.ndarray], torch.Tensor], together: int = 64
) -> list[list[int]]:
    """Return the ten best items that are known and that a user has not had, of each test user."""
    unknown = np.setdiff1d(np.arange(data.items), data.item)
    best: list[list[int]] = []
    with torch.no_grad():
        for first in range(0, len(data.tested), together):
            users = data.tested[first : first + together]
            found = scores(users).clone()
            found[:, torch.from_numpy(unknown)] = -torch.inf
            for row, user in enumerate(users):
                found[row, torch.from_numpy(data.history(user))] = -torch.inf
            best += found.topk(BEST).indices.tolist()
    return best


# --- wsknn


def sessions(folder: Path, data: str, seed: int, **config: Any) -> Answer:
    """The package wsknn's weighted nearest neighbours among sessions, a user's history being a session."""
    from wsknn import fit  # noqa: PLC0415

    given = Data(folder, data)
    np.random.seed(seed)  # noqa: NPY002 - it draws from there
    known = {
        int(user): (
            given.history(user).tolist(),
            given.time[given.starts[user] : given.starts[user + 1]].tolist(),
        )
        for user in np.unique(given.user)
    }
    with processor_time() as spent:
        # It proposes what the user has had, too.
        longest = int(np.diff(given.starts).max())
        model = fit(known, number_of_recommendations=BEST + longest, **config)
    best = []
    for user in given.tested.tolist():
        had = set(known[user][0])
        found = [item for item, _ in model.recommend(list(known[user])) if item not in had]
        best.append(found[:BEST])
    return spent[0], best


# --- torch-rechub


def deepfm(folder: Path, data: str, seed: int, **config: Any) -> Answer:
    """The DeepFM of torch-rechub; without hidden layers, a factorisation machine beside a linear part."""
    return _rechub("DeepFM", folder, data, seed, **config)


def widedeep(folder: Path, data: str, seed: int, **config: Any) -> Answer:
    """The Wide & Deep of torch-rechub; no feature is crossed with another."""
    return _rechub("WideDeep", folder, data, seed, **config)


def _rechub(
    name: str,
    folder: Path,
    data: str,
    seed: int,
    *,
    factors: int,
    hidden: Sequence[int],
    dropout: float,
    rate: float,
    batch: int,
    epochs: int,
) -> Answer:
    from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset  # noqa: PLC0415
    from torch_rechub.basic.features import SequenceFeature, SparseFeature  # noqa: PLC0415
    from torch_rechub.models import ranking  # noqa: PLC0415
    from torch_rechub.trainers import CTRTrainer  # noqa: PLC0415

    given, rows = Data(folder, data), load_file(folder / f"{data}.rows.safetensors")
    torch.manual_seed(seed)
    tables = {
        **{f"user{n}": given.user_features[:, n] for n in range(given.user_features.shape[1])},
        **{f"item{n}": given.item_features[:, n] for n in range(given.item_features.shape[1])},
    }
    features = [SparseFeature("item", given.items + 1, factors)]
    features += [SparseFeature(n, int(t.max()) + 1, factors) for n, t in tables.items()]
    features += [
        SparseFeature("last", given.items + 1, factors),
        SequenceFeature("past", given.items + 1, factors, pooling="mean", padding_idx=0),
    ]

    def columns(before: str) -> dict[str, torch.Tensor]:
        user, item, past = (rows[f"{before}{name}"] for name in ("user", "item", "past"))
        found = {"item": item + 1, "last": past[:, -1], "past": past}
        found |= {name: table[user if name[0] == "u" else item] for name, table in tables.items()}
        return {name: torch.from_numpy(column) for name, column in found.items()}

    model = getattr(ranking, name)(features, features, {"dims": list(hidden), "dropout": dropout})
    trainer = CTRTrainer(
        model,
        optimizer_params={"lr": rate, "weight_decay": 1e-6},
        n_epoch=epochs,
        model_path=str(folder),
    )
    known = columns("")
    names = list(known)
    with processor_time() as spent:
        parts = TensorDataset(*known.values(), torch.from_numpy(rows["label"]))
        # Whole batches are taken at once: one row after the other would take longer than the fit.
        order = BatchSampler(RandomSampler(parts), batch, drop_last=False)
        trainer.fit(
            DataLoader(
                parts,
                sampler=order,
                batch_size=None,
                collate_fn=lambda row: (dict(zip(names, row[:-1], strict=True)), row[-1]),
            )
        )
    model.eval()
    asked = columns("asked_")
    with torch.no_grad():
        found = [
            model({name: column[at : at + 65536] for name, column in asked.items()})
            for at in range(0, len(asked["item"]), 65536)
        ]
    return spent[0], [round(float(score), 7) for score in torch.cat(found)]


RUNS: dict[str, Callable[..., Answer]] = {
    each.__name__: each
    for each in (
        versions,
        sasrec,
        dssm,
        gru4rec,
        multidae,
        neumf,
        sessions,
        deepfm,
        widedeep,
    )
}


def main() -> None:
    """Answer until the input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no answer
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    os.chdir(folder)  # some leave logs where they run
    for line in sys.stdin:
        name, arguments = json.loads(line)
        print(json.dumps(RUNS[name](folder, **arguments)), file=answers, flush=True)


if __name__ == "__main__":
    main()
