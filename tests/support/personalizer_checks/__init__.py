"""What Personalizer's clients are promised, as checks of one client each: a check fails by an assertion."""

from support.personalizer_checks import events, rank, slots
from support.personalizer_checks.parts import CHECKS, OF_SLOTS, Setting, asked, ids

__all__ = ["CHECKS", "OF_SLOTS", "Setting", "asked", "events", "ids", "rank", "slots"]
