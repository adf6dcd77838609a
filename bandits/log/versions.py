"""The version of the fold, which a log's builds say: older logs go on meaning what they meant."""

from collections.abc import Mapping

from bandits.errors import NewerBuildError

FOLD = 7
"""The version of what a fold computes, what follows from its snapshots, and the kinds it knows.

1: of builds that say none. 2: an activation that comes before its decision waits for it, as a
   reward does; a reward of a decision that is not activated is no joined one; a warm start is taken
   also where VW was taught in another way; a ridge model's PMF does not depend on what all actions
   share. 3: a prior is taught to a model that has learned nothing. 4: a decision's catalogue may be
   a version in a log of items; a ridge model may have a half-life. 5: there are activity,
   merges of users, erasures and roots; a reward may name its signal, and a decision the profile
   that was read for it; a warm start may be what this log taught anew under other weights. 6: a
   decision's record may say what its rules depended on, items that were placed among it; there are
   states of the controller of quotas. 7: a decision's record may say what an apprentice would have
   chosen, and this may be what is learned; rewards may be put together by their least, their mean
   or their median; each slot of a page may be taught what the page earned; a decision under an
   event_id that had answered another request is a kind of its own, of which nothing is learned; a
   root may name what was known of users there; the logs of several partitions begin at roots, and
   each may be learned anew under other weights.

Whoever changes what a fold computes of a log, or adds a kind of record, adds one here. Entries
before the first BuildRecord that says so are folded by the rule that was before, for ever; so are
PMFs of the snapshots made until then.
"""


SIGNALS_SINCE = 5
"""From this version on a reward may name its signal; before, nobody read it."""
RELEARNED_SINCE = 7
"""From this version on a partition takes what its log taught anew; before, it was refused."""


def fold_version(build: Mapping[str, str]) -> int:
    """Return the version of the fold that a BuildRecord's build says.

    Raises:
        NewerBuildError: this build does not know that version.
    """
    # A build that says none is of version 1; what is no number, a later build has written.
    said = build.get("fold", "1")
    version = int(said) if said.isascii() and said.isdecimal() else FOLD + 1

    if version > FOLD:
        raise NewerBuildError(
            f"a newer build of banditloop has written this log (its fold has version {said}, this"
            f" build's {FOLD}): use that build, or a later one",
            "fold",
        )
    return version
