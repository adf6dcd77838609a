"""The orders in which pages can have been opened, where only the set of them is known."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from bandits.types import Float64


def order_probabilities(
    pages: Sequence[int], first: Float64, follows: Float64
) -> Iterator[tuple[int, int | None, float]]:
    """Yield the last page, the one before it (None: there was none), and their probability.

    A Markov chain, given the multiset of what it visited: the sum over all orders, by dynamic
    programming over subsets (Held & Karp 1962, doi:10.1137/0110015).

    Args:
        pages: Categories of the pages, in any order; a category may occur several times.
        first: float64[categories], the probability that a session begins with each.
        follows: float64[categories, categories], the probability of each after each.
    """
    if len(pages) == 1:
        yield pages[0], None, 1.0
        return

    # reached[subset, last] sums the orders of a subset of the pages that end with `last`; a subset
    # is reached from smaller numbers alone.
    steps = follows[pages][:, pages].tolist()
    everything = (1 << len(pages)) - 1
    reached = {(1 << at, at): float(first[page]) for at, page in enumerate(pages)}
    pairs: defaultdict[tuple[int, int], float] = defaultdict(float)
    for subset in range(1, everything):
        left = [at for at in range(len(pages)) if not subset >> at & 1]
        for last in range(len(pages)):
            weight = reached.get((subset, last), 0.0)
            for following in left if weight else ():
                more = weight * steps[last][following]
                whole = subset | 1 << following
                reached[whole, following] = reached.get((whole, following), 0.0) + more
                if whole == everything:
                    pairs[pages[following], pages[last]] += more

    total = sum(pairs.values())
    for (last, before), weight in pairs.items():
        yield last, before, weight / total
