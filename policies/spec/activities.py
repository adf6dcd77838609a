"""What a policy's decisions look at of what users did."""

import msgspec

from policies.profiles.options import SHOWN, type_of
from policies.profiles.signals import signal_types
from policies.spec.policy import PolicySpec


def types_looked_at(spec: PolicySpec) -> frozenset[str]:
    """Return the types of activity that ``repeat`` or a rule may ask about.

    The filter of a request may ask about any, where the policy takes such filters.
    """
    if spec.profile is msgspec.UNSET:
        return frozenset()
    repeated = () if spec.repeat is msgspec.UNSET else map(type_of, spec.repeat)
    found = {*repeated}.difference({SHOWN})
    if spec.rules is not None:
        found.update(spec.rules.looks.activities)
    if spec.filter_rule is not None:
        signals = {} if spec.signals is msgspec.UNSET else spec.signals
        found.update(spec.profile.types, signal_types(signals))
    return frozenset(found)
