"""Pages of several slots as Personalizer's clients ask for them, slot by slot or as a whole."""

import msgspec

from bandits.ridge.config import RidgeConfig
from policies.spec import PolicySpec


def parts_pages(spec: PolicySpec) -> bool:
    """Return whether each slot of a page may be a decision of its own, with features of its own.

    It may where a spec says nothing of pages as wholes, and nothing that may leave a slot empty.
    """
    if spec.is_apprentice and spec.holdout is not None:
        return False
    whole: list[object] = [spec.page, spec.placements, spec.filter, spec.repeat]
    whole.append(spec.rule.page_reward)
    if isinstance(spec.learner, RidgeConfig):
        whole += [spec.learner.examination, spec.learner.slot_biases]
    return all(each is msgspec.UNSET for each in whole)
