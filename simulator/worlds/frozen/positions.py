"""``positions``: a list of many slots, of which the lower ones are seldom looked at."""

from simulator.worlds.frozen.tastes import TasteWorld


class PositionsWorld(TasteWorld):
    """Tastes, and a click only on what is looked at, by slot alone: the position-based model.

    Craswell et al. 2008, doi:10.1145/1341531.1341545. ``examination`` is the truth about slots;
    ``means`` is what an item earns once it is looked at.
    """

    name = "positions"
