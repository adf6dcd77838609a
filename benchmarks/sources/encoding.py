"""How long does it take to make a user's vector of the newest events? Prints the processor's milliseconds.

    python -m benchmarks.sources.encoding
    python -m benchmarks.sources.encoding --events 50 --goal 1

Each network has its default sizes; nothing is kept of an earlier history. The median of histories of so many events, one
after the other, on one thread; beside it what a history costs that was encoded before.
"""

import argparse
import os
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import numpy as np
import torch

from benchmarks.table import Table
from policies.artifacts.source_artifact import TrainedSource
from policies.sources import load_model
from policies.training.sequence.gru4rec import Gru4Rec, Gru4RecConfig, gru4rec_arrays
from policies.training.sequence.next_item import NextItem
from policies.training.sequence.sasrec import SasRec, SasRecConfig, sasrec_arrays

ITEMS, HISTORIES = 1000, 400
NETWORKS = {
    "sasrec": (SasRecConfig(), SasRec, sasrec_arrays),
    "sasrec, two blocks": (SasRecConfig(blocks=2), SasRec, sasrec_arrays),
    "gru4rec": (Gru4RecConfig(), Gru4Rec, gru4rec_arrays),
}


def main() -> int:
    """Print a table, and which goals were missed."""
    parser = argparse.ArgumentParser(description="Time to encode a history")
    parser.add_argument("--events", type=int, default=50)
    parser.add_argument("--goal", type=float, default=1.0, help="milliseconds at most")
    parser.add_argument("--out", type=Path, help="the JSON file that is written")
    asked = parser.parse_args()

    table, rng = Table(), np.random.default_rng(0)
    histories = [rng.permutation(ITEMS)[: asked.events] for _ in range(HISTORIES)]
    weights = np.ones(asked.events, np.float32)
    for name, (config, body, arrays) in NETWORKS.items():
        torch.manual_seed(0)
        module = NextItem(ITEMS, body(config), config)
        source = TrainedSource(name.partition(",")[0], arrays(module), asdict(config))
        raw = partial(load_model(source, ITEMS).raw, weights=weights)
        for kind in ("encoded", "kept"):
            taken = []
            for history in histories:
                started = time.process_time()
                raw(history)
                taken.append(time.process_time() - started)
            milliseconds = float(np.median(taken)) * 1e3
            table.add(
                f"{name}: {asked.events} events, {kind}",
                f"{milliseconds:.3f} ms",
                milliseconds,
                at_most=asked.goal,
            )
    return table.finish(asked.out)


if __name__ == "__main__":
    raise SystemExit(main())
