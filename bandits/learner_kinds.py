"""Every kind of learner there is: the one list that a new kind is added to."""

from bandits.ridge.config import RidgeConfig
from bandits.rl.config import RlConfig
from bandits.vw.config import VwConfig

LearnerKind = RidgeConfig | VwConfig | RlConfig
"""A spec's ``learner``, told apart by its ``kind``."""
