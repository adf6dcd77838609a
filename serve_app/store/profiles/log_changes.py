"""What a log changes in profiles, read from its beginning."""

from collections.abc import Iterator

from bandits.log.positions import START
from policies.fold.join_only import JoinOnlyFold
from policies.profiles.changes import PartChanges
from policies.profiles.gatherer import ChangeGatherer
from policies.profiles.part import CutRule
from policies.profiles.root_parts import read_root_parts
from policies.spec import PolicySpec
from serve_app.store.checkpoints import Root
from serve_app.store.clients import Redis
from serve_app.store.history import History, LogPast, batched
from serve_app.store.spaces import Member, Space, read_space, register

BATCH = 1000


class PolicyChanges:
    """Reads what a policy's log changes in profiles, from its beginning on, or from its root."""

    def __init__(self, history: History, past: LogPast, salt: bytes) -> None:
        """Read it.

        Args:
            history: reads the log.
            past: the same, for decisions that are open for long.
            salt: the secret of the policy's draws.
        """
        self._history, self._past = history, past
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
        if self._fold.position == START:
            yield from self._since_root()
        for batch in batched(self._history.encoded(self._fold.position, position), BATCH):
            self._fold.apply(batch)
            self._gatherer.read(batch)
            yield batch[-1].id, self._gatherer.taken()

    def _since_root(self) -> Iterator[tuple[str, PartChanges]]:
        """Begin at the log's root, if it has one, and yield what was known there."""
        found = self._past.root()
        if found is None:
            return
        root, state = found
        self._fold.begin_at(state, self._past)
        yield from _known_at(root, self._history)


class ActivityChanges:
    """Reads what a log of activity changes in profiles, from its beginning on, or from its root."""

    def __init__(self, history: History, root: Root | None) -> None:
        """Read it.

        Args:
            history: reads the log.
            root: where it begins; None: with its first entry.
        """
        self._history, self._root, self._position = history, root, START

    def through(self, position: str) -> Iterator[tuple[str, PartChanges]]:
        """Yield changes, with the entry that they go up to, from where it was read last.

        Args:
            position: the last entry.

        Raises:
            BanditloopError: the log cannot be read.
        """
        if self._root is not None and self._position == START:
            self._position = self._root.position
            yield from _known_at(self._root, self._history)
        for batch in batched(self._history.encoded(self._position, position), BATCH):
            changes = PartChanges()
            changes.read(batch)
            self._position = batch[-1].id
            yield self._position, changes


def _known_at(root: Root, history: History) -> Iterator[tuple[str, PartChanges]]:
    """Yield what was known of users where a log begins, some at a time."""
    if root.profiles is None or history.archive is None:
        return
    for parts in read_root_parts(history.archive.files, root.profiles):
        changes = PartChanges()
        for user, part in parts:
            changes.known(user, part)
        yield root.position, changes


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
