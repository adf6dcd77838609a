"""A fold that finds out which rewards count, and learns nothing."""

from bandits.errors import RefusedError, SpecError
from bandits.log.join import JoinedDecision
from bandits.log.records import LogRecord, SpecRecord, UnknownRecord, WarmStartRecord
from policies.blend import make_learner
from policies.fold.checkpoint import FoldState, Past
from policies.fold.fold import Fold


class JoinOnlyFold(Fold):
    """Folds one log, or that of one of several partitions, as far as its rewards are concerned.

    It tells of the same rewards, at the same entries, as a fold that learns.
    """

    def begin_at(self, state: FoldState, past: Past) -> None:
        """Start from the state at a log's root, without its model; see ``resume``.

        Args:
            state: the state there.
            past: the log behind it.
        """
        self.resume(state, past)
        self.learner = None
        self._follow([])

    def _learn_or_refuse(self, joined: JoinedDecision) -> None:
        pass

    def _learn_alike(self, joined: list[JoinedDecision], first: int) -> int:
        return len(joined) - first

    def beside(self, spec: str) -> "JoinOnlyFold":
        """Return an empty fold of its kind, which weighs all rewards as one spec does.

        Args:
            spec: the digest of the spec.
        """
        return JoinOnlyFold(self._blobs.fetch, salt=self._salt, past=self._past, weigh_by=spec)

    def _configure(self, record: LogRecord | UnknownRecord) -> None:
        # A log that was learned anew is joined otherwise from there on, too.
        if isinstance(record, WarmStartRecord):
            if record.through is not None and self._weigh_by is None:
                self._relearn(record)
                self.learner = None
                self._follow([])
            return
        if not isinstance(record, SpecRecord):
            return
        spec = self._blobs.spec(record.digest)
        try:
            make_learner(spec, salt=self._salt)
        except SpecError as error:
            raise RefusedError(error.message, error.target) from error
        self._specs_named.add(record.digest)
        self.spec, self.spec_id, self.salt_id = spec, record.digest, record.salt_id
        self.join.rule = spec.rule
