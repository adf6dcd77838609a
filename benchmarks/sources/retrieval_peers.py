"""The blocks of `policies/sources/blocks.py` beside faiss and usearch: the same items, the same users' factors.

    pip install faiss-cpu usearch
    python -m benchmarks.sources.retrieval_peers --items 100000

One thread; 100 items by inner product; recall against all products. faiss: √items lists, spherical
k-means, flat and 8-bit rows. usearch (HNSW, 16 links, 64 candidates when adding, 16-bit rows) takes
minutes to build above 10^5 items and is left out there. Time is of the search alone, given the
user's factors.
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.sources.retrieval import (  # sets the number of BLAS threads, so first
    TOP,
    make_items,
    make_requests,
)

# isort: split
import faiss
import numpy as np
from numpy.typing import NDArray
from usearch.index import Index

from bandits.types import Float32
from policies.sources import blocks as blocks_module
from policies.sources.blocks import Blocks
from policies.sources.cf import FoldIn
from policies.training.blocks import arrange

USEARCH_UP_TO = 100_000
NO_ITEMS = np.empty(0, np.int32)


def measure(
    name: str,
    search: Callable[[Float32], NDArray[Any]],
    users: list[Float32],
    best: list[NDArray[Any]],
) -> None:
    """Print recall and time of one way of searching."""
    hits, times = 0, []
    for user, expected in zip(users, best, strict=True):
        began = time.perf_counter()
        found = search(user)
        times.append(1000 * (time.perf_counter() - began))
        hits += np.intersect1d(found, expected).size
    recall, (median, p99) = hits / (TOP * len(users)), np.quantile(times, (0.5, 0.99))
    print(
        f"  {name:24s} recall {recall:.3f}   median {median:6.2f} ms   p99 {p99:6.2f} ms",
        flush=True,
    )


def main() -> int:
    """Measure all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=100_000)
    items: int = parser.parse_args().items
    rng = np.random.default_rng(items)
    factors, centre = make_items(items, rng)
    fold_in = FoldIn(factors, 5.0, 30.0)
    histories = [np.array(request.history, np.int32) for request in make_requests(centre, rng)]
    users = [
        fold_in.encode(history, factors[history], np.ones(history.size, np.float32))
        for history in histories
    ]
    best = [np.argpartition(factors @ user, -TOP)[-TOP:] for user in users]
    print(f"{items:,d} items")

    began = time.perf_counter()
    blocks = Blocks(factors, **arrange(factors, seed=0))
    print(f"blocks: {time.perf_counter() - began:.1f} s")
    for blocks_module.LOOK_AT in (96, 160, 256):  # type: ignore[misc]
        look = f"{blocks_module.LOOK_AT} blocks"
        measure(look, lambda user: blocks.nearest(user, NO_ITEMS, TOP)[0], users, best)

    faiss.omp_set_num_threads(1)
    lists = int(np.sqrt(items))
    for name in ("Flat", "SQ8"):
        began = time.perf_counter()
        index = faiss.index_factory(
            factors.shape[1], f"IVF{lists},{name}", faiss.METRIC_INNER_PRODUCT
        )
        index.cp.spherical, index.cp.max_points_per_centroid = True, 64
        index.train(factors)
        index.add(factors)
        print(f"faiss IVF{lists},{name}: {time.perf_counter() - began:.1f} s")
        for index.nprobe in (16, 64, 256):
            measure(
                f"{index.nprobe} lists",
                lambda user: index.search(user[None], TOP)[1][0],  # noqa: B023
                users,
                best,
            )

    if items <= USEARCH_UP_TO:
        began = time.perf_counter()
        graph = Index(
            ndim=factors.shape[1], metric="ip", dtype="f16", connectivity=16, expansion_add=64
        )
        graph.add(np.arange(items), factors, threads=1)
        print(f"usearch: {time.perf_counter() - began:.1f} s")
        for graph.expansion_search in (100, 400, 800):
            look = f"{graph.expansion_search} candidates"
            measure(look, lambda user: graph.search(user, TOP, threads=1).keys, users, best)
    return 0


if __name__ == "__main__":
    sys.exit(main())
