"""Every key name in Redis.

The braces are a hash tag: all keys of one partition share a slot of a Redis Cluster.
"""

from dataclasses import dataclass

PROCESSES = "bl:processes"
GOVERNED = "bl:governed"
"""The mark of whoever has specs served that are set over HTTP."""
REMEMBERED_S = 600
"""How long a client may retry a decision under the event_id it made."""


def process_metrics(process: str) -> str:
    """Name the metrics of one process, as it last pushed them."""
    return f"bl:metrics:{process}"


@dataclass(frozen=True, slots=True)
class LogKeys:
    """The keys of one log, whatever it is a log of."""

    policy: str

    @property
    def tag(self) -> str:
        """The text in the braces."""
        raise NotImplementedError

    def _key(self, suffix: str) -> str:
        return f"bl:{{{self.tag}}}:{suffix}"

    @property
    def log(self) -> str:
        """The one ordered log: a stream whose entries hold a record in field ``r``."""
        return self._key("log")

    def appended(self, name: str) -> str:
        """Name the memory of an entry that was appended once, however often asked: its position."""
        return self._key(f"said:{name}")

    @property
    def needed(self) -> str:
        """The position from which a reader may have to read: nothing from there on is trimmed."""
        return self._key("needed")

    @property
    def root(self) -> str:
        """Where the log begins, of which nothing older is kept; see checkpoints.py."""
        return self._key("root")

    @property
    def archive(self) -> str:
        """Hash of what is committed to the archive, written and trimmed; see archiver.py."""
        return self._key("archive")

    def blob(self, digest: str) -> str:
        """Name a content-addressed blob."""
        return self._key(f"blob:{digest}")

    def unfinished(self, name: str) -> str:
        """Name a blob of which not all parts are stored; see blobs/parts.py."""
        return self._key(f"unfinished:{name}")

    @property
    def lease(self) -> str:
        """The leader's fencing token; expires with the leader."""
        return self._key("lease")

    @property
    def fence(self) -> str:
        """The number of the newest fencing token."""
        return self._key("fence")

    @property
    def waiting(self) -> str:
        """Sorted set of the learners that wait for the lease, by when they last asked."""
        return self._key("waiting")


@dataclass(frozen=True, slots=True)
class ItemsKeys(LogKeys):
    """The keys of a policy's log of items, which all of its partitions share."""

    @property
    def tag(self) -> str:
        """The text in the braces; a partition's number is never this."""
        return f"{self.policy}.items"

    @property
    def base(self) -> str:
        """Hash of the newest whole catalogue, where whoever reads the log may begin."""
        return self._key("base")

    @property
    def bases(self) -> str:
        """Positions of the entries with whole catalogues, newest first."""
        return self._key("bases")


@dataclass(frozen=True, slots=True)
class ActivityKeys(LogKeys):
    """The keys of a space's log of activity; ``policy`` is the name of the space."""

    @property
    def tag(self) -> str:
        """The text in the braces; a partition's number is never this."""
        return f"{self.policy}.activity"

    @property
    def inbox(self) -> str:
        """Stream to which outside producers add activity. The leader moves it into the log."""
        return self._key("inbox")

    @property
    def inbox_counts(self) -> str:
        """Hash of how many events of the inbox had which outcome."""
        return self._key("inbox_counts")

    @property
    def ids_prefix(self) -> str:
        """Prefix of the hashes that remember the ids of activity, one for each span of time."""
        return self._key("ids:")

    @property
    def demand(self) -> str:
        """What is in demand by what users did: the counts that a new leader goes on with."""
        return self._key("demand")

    @property
    def in_demand(self) -> str:
        """Hash of what replicas read of it, and the position that it is of."""
        return self._key("in_demand")

    def erased(self, pseudonym: str) -> str:
        """Name the mark of a pseudonym that nothing may be logged under any more."""
        return self._key(f"erased:{pseudonym}")


@dataclass(frozen=True, slots=True)
class UsersKeys:
    """The keys of what is known of a space's users: who they are, and their profiles."""

    space: str

    def _key(self, suffix: str) -> str:
        return f"bl:{{{self.space}.users}}:{suffix}"

    def person(self, keyed: str) -> str:
        """Name the record that links a person to their pseudonyms: the one primary store.

        Args:
            keyed: the keyed hash of the user's id (policies/pseudonyms.py).
        """
        return self._key(f"person:{keyed}")

    def profile(self, pseudonym: str) -> str:
        """Name the hash of a pseudonym's profile: a field for each part, by its writer's name."""
        return self._key(f"profile:{pseudonym}")

    @property
    def parts(self) -> str:
        """Hash from a part's name to how far its writer has read its log.

        A part that is not in it is to be made of the log, from its beginning. Whoever deletes all
        keys that begin as those of profiles do deletes this one, too.
        """
        return self._key("profile::parts")

    @property
    def fences(self) -> str:
        """Hash from a part's name to the newest fencing number that wrote it."""
        return self._key("fences")

    @property
    def unnoted(self) -> str:
        """Set of the pseudonyms of whom was erased that no copy of the persons knows of yet."""
        return self._key("unnoted")

    @property
    def backed_up(self) -> str:
        """When the newest copy of the persons was begun, in ms; before: since when it is due."""
        return self._key("backed_up")

    @property
    def backing_up(self) -> str:
        """Says that somebody copies the persons just now; expires where they have died."""
        return self._key("backing_up")

    @property
    def policies(self) -> str:
        """Hash from a policy that shares these users to what it says of itself."""
        return self._key("policies")

    @property
    def keyed(self) -> str:
        """Set of the policies whose logs have keyed pseudonyms, of a time without profiles."""
        return self._key("keyed")

    @property
    def erasures(self) -> str:
        """Hash from the name of an erasure that runs to how it stands."""
        return self._key("erasures")

    @property
    def unfiled(self) -> str:
        """Set of the users whose entries in files of profiles are not used: they were erased."""
        return self._key("unfiled")

    def erasure(self, name: str) -> str:
        """Name what is left of an erasure that is complete, for a while."""
        return self._key(f"erasure:{name}")

    def erased(self, keyed: str) -> str:
        """Name the memory of who was erased a moment ago, for those who ask again.

        Args:
            keyed: as of ``person``.
        """
        return self._key(f"erased:{keyed}")


@dataclass(frozen=True, slots=True)
class Keys(LogKeys):
    """The keys of one partition of a policy."""

    partition: int = 0

    @property
    def tag(self) -> str:
        """The text in the braces."""
        return f"{self.policy}.{self.partition}"

    @property
    def inbox(self) -> str:
        """Stream to which outside producers add rewards and activations.

        The leader moves them into the log.
        """
        return self._key("inbox")

    def passed_on(self, name: str) -> str:
        """Name the memory of an event that another partition's inbox has passed on."""
        return self._key(f"passed_on:{name}")

    @property
    def checkpoints(self) -> str:
        """Checkpoints still stored, newest first."""
        return self._key("checkpoints")

    @property
    def head(self) -> str:
        """Pointer to the newest snapshot."""
        return self._key("head")

    @property
    def snapshots(self) -> str:
        """Digests of the snapshots still stored, newest first."""
        return self._key("snapshots")

    @property
    def artifacts(self) -> str:
        """Hash from a replica to its report of the artifact that it serves."""
        return self._key("artifacts")

    @property
    def artifact_asked(self) -> str:
        """The version that replicas are asked to load beside the one that serves."""
        return self._key("artifact_asked")

    @property
    def loads(self) -> str:
        """Capped stream of which replica served which snapshot since when."""
        return self._key("loads")

    @property
    def stats(self) -> str:
        """The learner's counts, as of its last publication."""
        return self._key("stats")

    @property
    def fold(self) -> str:
        """The highest version of the fold that a build in the log says; see newer_builds.py."""
        return self._key("fold")

    @property
    def progress(self) -> str:
        """How far the leader has folded the log, and where it stands still; see progress.py."""
        return self._key("progress")

    @property
    def refusals(self) -> str:
        """The entries that were refused last, with their reasons, newest first."""
        return self._key("refusals")

    @property
    def offer(self) -> str:
        """The gift of this partition of several to the next merge."""
        return self._key("offer")

    @property
    def offers(self) -> str:
        """Digests of the models this partition has given, while they are stored, newest first."""
        return self._key("offers")

    @property
    def merge(self) -> str:
        """The newest merge, which the other partitions repeat in their logs; partition 0 has it."""
        return self._key("merge")

    @property
    def merged(self) -> str:
        """Hash from a merge's number to the digest of its stored model; partition 0 has it."""
        return self._key("merged")

    @property
    def shadows(self) -> str:
        """Hash from a shadow's name to how far it is; partition 0 has it."""
        return self._key("shadows")

    @property
    def evaluations(self) -> str:
        """Hash from an evaluation's id to it; see evaluations/kept.py. Partition 0 has it."""
        return self._key("evaluations")

    @property
    def importances(self) -> str:
        """The same of feature importances."""
        return self._key("importances")

    @property
    def evaluation_series(self) -> str:
        """Hash from an evaluation's job to what its policies earn over time."""
        return self._key("evaluation_series")

    @property
    def apprenticeship(self) -> str:
        """What an apprentice's imitation was counted to be, last; partition 0 has it."""
        return self._key("apprenticeship")

    def at_work(self, job: str) -> str:
        """Name the mark of a job that a replica is at just now; see evaluations/kept.py."""
        return self._key(f"at_work:{job}")

    @property
    def wanted(self) -> str:
        """The spec that was set over HTTP; see wanted_specs.py. Partition 0 has it."""
        return self._key("wanted")

    @property
    def refreshing(self) -> str:
        """Who trains the policy's sources anew just now, and since when; partition 0 has it."""
        return self._key("refreshing")

    @property
    def refreshed(self) -> str:
        """The outcome of the last refresh; partition 0 has it."""
        return self._key("refreshed")

    @property
    def refreshes(self) -> str:
        """Hash of how many refreshes had which outcome; partition 0 has it."""
        return self._key("refreshes")

    def erased(self, pseudonym: str) -> str:
        """Name the mark of a pseudonym that nothing may be logged under any more."""
        return self._key(f"erased:{pseudonym}")

    def visit(self, keyed: str) -> str:
        """Name the list of what one visit was shown by decisions of this partition."""
        return self._key(f"visit:{keyed}")

    def slot_names(self, digest: str) -> str:
        """Name the list of what a decision's slots are called, by its event_id's digest."""
        return self._key(f"slots:{digest}")

    @property
    def decisions_prefix(self) -> str:
        """Prefix of the hashes that remember decisions whose event_id the client made.

        There is one hash for each span of time; it goes from the event_id to the entry and what was
        asked; see event_log.py.
        """
        return self._key("decisions:")


def partitions(policy: str, count: int) -> list[Keys]:
    """Return the keys of each of a policy's partitions.

    Args:
        policy: its name.
        count: how many partitions it has.
    """
    return [Keys(policy, number) for number in range(count)]
