"""The search for a better policy: a few that are like the one that serves, judged as it was.

What is best of several is so partly by luck. So a policy is only called better whose lower bound,
at 95% for all that were looked at together, is above that of what was served.
"""

import subprocess
from collections.abc import Collection, Mapping, Sequence
from statistics import NormalDist

from policies.personalizer.candidates import CURRENT, crossed_otherwise, learning_otherwise
from serve_app.personalizer.evaluations.judging import Z_95, Judgement, LogPart, judge_learning
from serve_app.store.evaluations.kept import ONLINE, JudgedPolicy

SEARCHED = "OfflineExperimentation"
LEARNING = ("Custom", SEARCHED)
"""The sources of policies that can be applied."""
LONGEST_S = 900.0
"""How long each half of a search may take."""


def search_better(part: LogPart, base: str, taken: Collection[str]) -> Judgement:
    """Return what policies are worth that are like another one.

    Args:
        part: of the archive of a policy.
        base: the arguments of the one that they are like.
        taken: names that others have.
    """
    try:
        crossed = judge_learning(
            part, _named(crossed_otherwise(base), taken), SEARCHED, within_s=LONGEST_S
        )
        if not crossed.found:
            return crossed
        best = max(crossed.found, key=lambda each: each.value)
        names = [*taken, *(each.name for each in crossed.found)]
        learning = judge_learning(
            part, _named(learning_otherwise(best.arguments), names), SEARCHED, within_s=LONGEST_S
        )
    except subprocess.TimeoutExpired:
        said = "The search for a better policy took too long: evaluate a shorter time."
        return Judgement([], {}, said)
    found = [*crossed.found, *learning.found]
    said = f"Policies beside {CURRENT}, which is the one that was set, learned the log anew."
    return Judgement(found, {**crossed.series, **learning.series}, said)


def better_than_online(found: Sequence[JudgedPolicy]) -> str:
    """Return the name of the best policy that is better than what was served; empty: none is."""
    online = next((each for each in found if each.source == ONLINE), None)
    tried = [each for each in found if each.source in LEARNING]
    if online is None or not tried:
        return ""

    # At the level of one of so many, in place of 95% for it alone.
    wider = NormalDist().inv_cdf(1 - 0.05 / (2 * len(tried))) / Z_95
    lowest = {each.name: each.value - wider * (each.value - each.low) for each in tried}
    better = [
        each for each in tried if each.value > online.value and lowest[each.name] > online.low
    ]
    return max(better, key=lambda each: lowest[each.name]).name if better else ""


def _named(made: Mapping[str, str], taken: Collection[str]) -> dict[str, str]:
    """Return policies under names that no other has."""
    return {name if name not in taken else f"{name} (searched)": made[name] for name in made}
