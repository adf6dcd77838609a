"""How fast ``banditloop train policy`` learns from our archive, beside what it learns with.

    python -m benchmarks.replay.training --rows 200000

The log: decisions among 20 of 1,000 items of a catalogue, contexts of four features, one decision
in five rewarded. A bare ridge learner is given rows that are in memory already, one by one, and as
the columns that training makes of them. Vowpal Wabbit's own command line reads the same
interactions as text, in one thread; its weights and ours must be the same. Seconds are processor
time of one core; of several runs in turn the best counts.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import numpy as np
from vowpal_wabbit_next import Workspace, run_cli_driver

from bandits.exploration import EpsilonGreedy
from bandits.log.codec import encode
from bandits.log.join import JoinRule
from bandits.log.positions import START
from bandits.log.records import (
    CatalogueRecord,
    DecisionRecord,
    LogRecord,
    RewardRecord,
    SpecRecord,
    TickRecord,
)
from bandits.ridge.config import RidgeConfig
from bandits.types import ChosenRow, ChosenRows
from bandits.vw.config import VwConfig
from bandits.vw.payloads import decode_model
from benchmarks.table import Table
from policies.archive.archive import ArchiveWriter
from policies.archive.range_file import Range, hour_of
from policies.blend import make_learner
from policies.features import chosen_rows
from policies.items.catalogue import Catalogue, Item
from policies.spec import PolicySpec
from simulator.learners.trained import rows_to_learn, train_on_log
from simulator.logs.archive.pieces import policy_pieces

ITEMS, ACTIONS, FIRST_MS, APART_MS = 1000, 20, 1_700_000_000_000, 50
RULE = JoinRule(window_s=10.0)
RIDGE = PolicySpec("home", learner=RidgeConfig(), exploration=EpsilonGreedy(), join=RULE)
VW = PolicySpec("home", learner=VwConfig(), exploration=EpsilonGreedy(), join=RULE)
FILE_ENTRIES = 50_000


def items() -> list[Item]:
    """The items of the catalogue: a category of twenty, a price, whether it is new."""
    rng = np.random.default_rng(1)
    return [
        Item(
            f"item-{n}",
            {
                "category": f"c{int(rng.integers(20))}",
                "fresh": bool(rng.random() < 0.2),
                "price": round(float(rng.gamma(2.0, 10.0)), 2),
            },
        )
        for n in range(ITEMS)
    ]


def decisions(count: int, catalogue: Catalogue, seed: int = 0) -> Sequence[DecisionRecord]:
    """So many decisions of the policy that the log is of."""
    rng = np.random.default_rng(seed)
    out = []
    for number in range(count):
        actions = rng.choice(ITEMS, ACTIONS, replace=False)
        scores = rng.random(ACTIONS)
        pmf = 0.9 * scores / scores.sum() + 0.1 / ACTIONS
        pmf /= pmf.sum()
        out.append(
            DecisionRecord(
                event_id=f"visit-{number:09d}",
                policy="home",
                spec=RIDGE.digest,
                snapshot_id="s0",
                catalogue=catalogue.digest,
                context={
                    "device": ("phone", "web", "tv", "tablet")[int(rng.integers(4))],
                    "country": f"l{int(rng.integers(30))}",
                    "hour": float(rng.integers(24)),
                    "age": float(rng.integers(18, 80)),
                },
                action_ids=[f"item-{n}" for n in actions],
                features=None,
                scores={},
                pmf=pmf.tobytes(),
                chosen=[int(rng.choice(ACTIONS, p=pmf))],
            )
        )
    return out


def rewarded(number: int) -> bool:
    """Whether a decision, by its number, has a reward in the log."""
    return number % 5 == 0


def write_log(root: Path, records: Sequence[DecisionRecord], catalogue: Catalogue) -> None:
    """Archive the decisions and their rewards as the log of the policy ``home``."""
    entries: list[tuple[str, bytes]] = []

    def append(ms: int, record: LogRecord) -> None:
        before = entries[-1][0].partition("-") if entries else ("", "", "")
        sequence = int(before[2]) + 1 if before[0] == str(ms) else 0
        entries.append((f"{ms}-{sequence}", encode(record)))

    append(FIRST_MS, SpecRecord(RIDGE.digest, "salt"))
    append(FIRST_MS, CatalogueRecord(catalogue.digest))
    for number, record in enumerate(records):
        now = FIRST_MS + APART_MS * (number + 1)
        append(now, record)
        late = number - 40
        if late >= 0 and rewarded(late):
            append(now, RewardRecord(records[late].event_id, 1.0, slot=0))
    end = FIRST_MS + APART_MS * len(records) + 60_000
    append(end, TickRecord())

    blobs = {RIDGE.digest: RIDGE.encoded, catalogue.digest: catalogue.encoded}
    writer, previous = ArchiveWriter(root, "home"), START
    hours = np.array([hour_of(entry_id) for entry_id, _ in entries])
    cuts = {0, len(entries), *(np.flatnonzero(np.diff(hours)) + 1).tolist()}
    cuts.update(range(0, len(entries), FILE_ENTRIES))
    for start, stop in pairwise(sorted(cuts)):
        part = entries[start:stop]
        writer.write(Range(previous, part[0][0], part[-1][0], len(part)), part, blobs.get)
        previous = part[-1][0]


def taught(
    spec: PolicySpec, records: Sequence[DecisionRecord], catalogue: Catalogue
) -> list[ChosenRow]:
    """The rows of the log as a learner takes them, in memory."""
    rows = []
    for number, record in enumerate(records):
        ((action_id, shared, own),) = chosen_rows(spec, catalogue, record, record.chosen)
        reward = float(rewarded(number) and number < len(records) - 40)
        rows.append(ChosenRow(action_id, shared, own, reward, ACTIONS, record.propensity(0)))
    return rows


def as_text(path: Path, records: Sequence[DecisionRecord]) -> None:
    """Write the same interactions as Vowpal Wabbit reads them."""
    features = {item.id: _words(item.features) for item in items()}
    with path.open("w") as file:
        for number, record in enumerate(records):
            cost = -float(rewarded(number) and number < len(records) - 40)
            file.write(f"shared |context {_words(record.context)}\n")
            for at, action_id in enumerate(record.action_ids):
                label = f"0:{cost:g}:{record.propensity(0)!r} " if at == record.chosen[0] else ""
                file.write(f"{label}|item {action_id} |features {features[action_id]}\n")
            file.write("\n")


def _words(features: dict) -> str:
    return " ".join(
        f"{name}={value}"
        if isinstance(value, str)
        else name
        if value is True
        else f"{name}:{value!r}"
        for name, value in features.items()
        if value is not False
    )


def best_s(runs: int, *measured: Callable[[], object]) -> list[float]:
    """The least processor time of each, run in turn."""
    best = [float("inf")] * len(measured)
    for _ in range(runs):
        for at, run in enumerate(measured):
            began = time.process_time()
            run()
            best[at] = min(best[at], time.process_time() - began)
    return best


class Bench:
    """A log, archived and as text, and what learns from it."""

    def __init__(self, folder: Path, count: int) -> None:
        self.count, self.folder = count, folder
        self.root, self.text, self.model = folder / "archive", folder / "log.vw", folder / "model"
        self.catalogue = Catalogue(items())
        self.records = decisions(count, self.catalogue)
        write_log(self.root, self.records, self.catalogue)
        as_text(self.text, self.records)

    def train(self, spec: PolicySpec) -> bytes:
        """Train on the archive, and return the checkpoint."""
        return train_on_log(spec, policy_pieces(str(self.root), "home", 1)).checkpoint

    def columns(self, spec: PolicySpec) -> list[ChosenRows]:
        """The rows as columns, as training makes them."""
        pieces = policy_pieces(str(self.root), "home", 1)
        return [rows_to_learn(spec, batch) for piece in pieces for batch in piece.batches()]

    def command_line(self) -> None:
        """Let Vowpal Wabbit learn from the text, in one thread."""
        words = [*VW.learner.args.split(), "--quiet", "-d", str(self.text), "-f", str(self.model)]
        run_cli_driver(words, onethread=True)


def bare(spec: PolicySpec, rows: Sequence[ChosenRow]) -> bytes:
    """Learn rows that are in memory, one by one, and return the checkpoint."""
    learner = make_learner(spec, salt=b"")
    for row in rows:
        learner.learn_row(row)
    return learner.checkpoint()


def bare_columns(spec: PolicySpec, parts: Sequence[ChosenRows]) -> bytes:
    """Learn rows that are columns in memory, and return the checkpoint."""
    learner = make_learner(spec, salt=b"")
    for part in parts:
        learner.learn_rows(part)
    return learner.checkpoint()


def add_rows(table: Table, count: int, runs: int = 3) -> None:
    """Measure, and add the rows to a table."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), count)
        for name, spec in (("ridge", RIDGE), ("vw", VW)):
            rows, columns = taught(spec, bench.records, bench.catalogue), bench.columns(spec)
            measured: list[Callable[[], object]] = [
                partial(bare, spec, rows),
                partial(bare_columns, spec, columns),
                partial(bench.train, spec),
                *([bench.command_line] if name == "vw" else []),
            ]
            if len({run() for run in measured[:3]}) > 1:
                raise RuntimeError("the same rows make the same model")

            rates = [count / s for s in best_s(runs, *measured)]
            table.add(f"{name}: bare, row by row", f"{rates[0]:,.0f} rows/s", rates[0])
            table.add(f"{name}: bare, rows as columns", f"{rates[1]:,.0f} rows/s", rates[1])
            table.add(f"{name}: train policy from the archive", f"{rates[2]:,.0f} rows/s", rates[2])
            if name == "ridge":
                ratio = rates[2] / rates[0]
                table.add("ridge: of the bare learner", f"{ratio:.2f}", ratio, at_least=0.8)
                continue

            # The command line has learned the same from all actions.
            check_same(bench.model, bare(spec, rows))
            ratio = rates[2] / rates[3]
            table.add("vw: its own command line", f"{rates[3]:,.0f} rows/s", rates[3])
            table.add("vw: of its own command line", f"{ratio:.2f}", ratio, at_least=0.6)


def check_same(model: Path, checkpoint: bytes) -> None:
    """Demand that a file of Vowpal Wabbit and a checkpoint of ours hold the same weights, nearly."""
    words = [*VW.learner.args.split(), "--quiet"]
    theirs = Workspace(words, model_data=model.read_bytes()).weights()[:, 0, 0]
    ours = Workspace(words, model_data=decode_model(checkpoint).model).weights()[:, 0, 0]
    apart, largest = np.abs(theirs - ours).max(), np.abs(ours).max()
    # Its parser does not round each number as Python does.
    if apart > 1e-3 * largest:
        raise RuntimeError(f"weights of up to {largest} differ by up to {apart}")


def main() -> int:
    """Run, print; exit 0 when the goals are reached."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3)
    given, table = parser.parse_args(), Table()
    add_rows(table, given.rows, given.runs)
    return table.finish(None)


if __name__ == "__main__":
    sys.exit(main())
