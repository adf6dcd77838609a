"""Features of the context that a decision uses and nobody keeps: ``context_private`` of a spec.

Sources are shown them, and what these make of them is in the record, as scores. The model never is:
a decision is derived again from its record, and what is not in there cannot have been looked at.
"""

from collections.abc import Collection

from bandits.values import FeatureMap


def without_private(context: FeatureMap, private: Collection[str]) -> FeatureMap:
    """Return the features that may be logged and learned from; the same object if all may.

    Args:
        context: of a request, in the form of a record.
        private: names; each is also that of all features below it: ``home`` of ``home.street``.
    """
    if not private:
        return context
    kept = {name: value for name, value in context.items() if not is_private(name, private)}
    return context if len(kept) == len(context) else kept


def is_private(name: str, private: Collection[str]) -> bool:
    """Return whether a feature is, or is below, one of some names.

    Args:
        name: the feature's, as a record would have it.
        private: names.
    """
    return name in private or any(name.startswith(f"{each}.") for each in private)
