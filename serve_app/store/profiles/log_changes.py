"""What a log changes in profiles, read from its beginning."""

from collections.abc import Iterator

from bandits.log.positions import START
from policies.fold.join_only import JoinOnlyFold
from policies.profiles.changes import PartChanges
from policies.profiles.gatherer import ChangeGatherer
from policies.profiles.part import CutRule
from policies.spec import PolicySpec
from serve_app.store.clients import Redis
from serve_app.store.history import History, LogPast, batched
from serve_app.store.spaces import Member, Space, read_space, register

BATCH = 1000


class PolicyChanges:
    """Reads what a policy's log changes in profiles, from its beginning on."""

    def __init__(self, history: History, past: LogPast, salt: bytes) -> None:
        """Read it.

        Args:
            history: reads the log.
            past: the same, for decisions that are open for long.
            salt: the secret of the policy's draws.
        """
        self._history = history
        self._fold = JoinOnlyFold(history.blob, salt=salt, past=past)
        self._gatherer = ChangeGatherer(self._fold.spec_of)
        self._fold.tell_rewards(self._gatherer.rewarded)

    def through(self, position: str) -> Iterator[tuple[str, PartChanges]]:
        """Yield changes, with the entry that they go up to, from where it was read last.

        Args:
            position: the last entry.

        Raises:
            BanditloopError: the log cannot be read, or not be folded.
        """
        for batch in batched(self._history.encoded(self._fold.position, position), BATCH):
            self._fold.apply(batch)
            self._gatherer.read(batch)
            yield batch[-1].id, self._gatherer.taken()


class ActivityChanges:
    """Reads what a log of activity changes in profiles, from its beginning on."""

    def __init__(self, history: History) -> None:
        self._history, self._position = history, START

    def through(self, position: str) -> Iterator[tuple[str, PartChanges]]:
        """Yield changes, with the entry that they go up to, from where it was read last.

        Args:
            position: the last entry.

        Raises:
            BanditloopError: the log cannot be read.
        """
        for batch in batched(self._history.encoded(self._position, position), BATCH):
            changes = PartChanges()
            for entry in batch:
                changes.read(entry)
            self._position = batch[-1].id
            yield self._position, changes


def rule_now(client: Redis, spec: PolicySpec) -> CutRule:
    """Return what is kept of the users of a policy's space, as its members want it by now.

    Args:
        client: a connection.
        spec: the policy, which says again that it is a member if Redis has lost that.

    Raises:
        RedisError: Redis does not answer.
    """
    space = read_space(client, spec.shares)
    if all(member.policy != spec.name for member in space.members):
        register(client, spec)
        space = Space(space.name, (*space.members, Member.of(spec)))
    return space.rule
