"""The one error tree.

Every error names the field it is about (``target``), so whoever reads it knows what to fix.
"""

import re
from typing import ClassVar

_NUMBER = re.compile(r"\[errno -?\d+\] ", re.IGNORECASE)


def plain(said: object) -> str:
    """Return what an error says, on one line and without the system's number for it."""
    if isinstance(said, OSError) and said.strerror and said.filename is not None:
        return f"{said.filename}: {said.strerror}"
    return " ".join(_NUMBER.sub("", str(said)).split())


class BanditloopError(Exception):
    """Base of every error this project raises on purpose.

    ``code`` is stable and machine-readable; ``target`` is the path of the field at fault, e.g.
    ``actions[3].id``.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, target: str | None = None) -> None:
        self.message = _NUMBER.sub("", message)  # that of an OSError it quotes
        super().__init__(self.message)
        self.target = target


class InvalidInputError(BanditloopError):
    """A value was refused where it entered."""

    code = "invalid_input"


class MalformedBodyError(InvalidInputError):
    """The bytes are not JSON at all."""

    code = "malformed_json"


class InvalidFieldError(InvalidInputError):
    """A field has the wrong type, is missing, or is not known."""

    code = "invalid_field"


class NonFiniteNumberError(InvalidInputError):
    """NaN or infinity where a number is needed."""

    code = "non_finite_number"


class EmptyActionsError(InvalidInputError):
    """A decision needs at least one action."""

    code = "empty_actions"


class DuplicateActionError(InvalidInputError):
    """Two actions of one decision share an id."""

    code = "duplicate_action"


class TooManyActionsError(InvalidInputError):
    """More actions (or batch items) than one request may carry."""

    code = "too_many_actions"


class TooManyFeaturesError(InvalidInputError):
    """More features, or more pairs of them, than one decision may carry."""

    code = "too_many_features"


class InvalidEventIdError(InvalidInputError):
    """An event_id is empty or longer than 256 bytes."""

    code = "invalid_event_id"


class InvalidUserIdError(InvalidInputError):
    """A user_id is empty or longer than 256 bytes."""

    code = "invalid_user_id"


class MergeWithItselfError(InvalidInputError):
    """A user is to be merged with itself."""

    code = "merge_with_itself"


class MergeRingError(InvalidInputError):
    """A user is to be merged into one that was merged into it before."""

    code = "merge_ring"


class AlreadyMergedError(InvalidInputError):
    """The user to merge was merged into another one before."""

    code = "already_merged"


class TooManyMergedError(InvalidInputError):
    """So many users were merged into one that it would have more pseudonyms than one may."""

    code = "too_many_merged"


class IncomparableError(InvalidInputError):
    """A source is asked which items are alike, and cannot say."""

    code = "incomparable"


class EventConflictError(InvalidInputError):
    """The event_id has answered another request already."""

    code = "event_conflict"


class ActivityConflictError(InvalidInputError):
    """The id is that of something else that a user did."""

    code = "activity_conflict"


class TooManyActivityEventsError(InvalidInputError):
    """More of what users did than one request may carry, or nothing."""

    code = "too_many_events"


class UnknownTypeError(InvalidInputError):
    """No policy of the space says that its users do this."""

    code = "unknown_type"


class UnknownSignalError(InvalidInputError):
    """A reward names a signal that the policy's spec does not weigh."""

    code = "unknown_signal"


class TimeOutOfRangeError(InvalidInputError):
    """Something is said to have happened before 1970, or is yet to happen."""

    code = "time_out_of_range"


class TooManyItemsError(InvalidInputError):
    """More items than one request may change."""

    code = "too_many_items"


class InvalidItemIdError(InvalidInputError):
    """An item's id is empty, too long, another than that of the path, or that of two items."""

    code = "invalid_item_id"


class TextTooLongError(InvalidInputError):
    """The texts of an item, its metadata or its features, are longer than is kept of one."""

    code = "text_too_long"


class InvalidVectorError(InvalidInputError):
    """A vector of an item is empty, too long, or holds what is no finite number."""

    code = "invalid_vector"


class VectorLengthError(InvalidInputError):
    """A vector of an item has another length than those of the other items."""

    code = "vector_length"


class InvalidTimesError(InvalidInputError):
    """An item would be offered until a time that is not after the one from which it is offered."""

    code = "invalid_times"


class BodyTooLargeError(InvalidInputError):
    """The request body exceeds the limit."""

    code = "body_too_large"


class BodyTimeoutError(InvalidInputError):
    """The request body did not arrive in time."""

    code = "body_timeout"


class UnauthorizedError(BanditloopError):
    """No API key came with the request, or none that is known."""

    code = "unauthorized"


class ForbiddenError(BanditloopError):
    """The API key is known, and does not reach this far."""

    code = "forbidden"


class RateLimitedError(BanditloopError):
    """The API key's rate is used up, or another user is being exported.

    ``retry_after_s`` says for how many whole seconds at most.
    """

    code = "rate_limited"

    def __init__(self, message: str, target: str | None = None, *, retry_after_s: int = 1) -> None:
        super().__init__(message, target)
        self.retry_after_s = retry_after_s


class InvalidPmfError(InvalidInputError):
    """A policy returned something that is not a probability mass function. Never repaired."""

    code = "invalid_pmf"


class UnknownPolicyError(BanditloopError):
    """No policy of this name is served."""

    code = "unknown_policy"


class UnknownSpaceError(BanditloopError):
    """No policy that is served keeps profiles in a space of this name."""

    code = "unknown_space"


class NotFoundError(BanditloopError):
    """No such route."""

    code = "not_found"


class MethodNotAllowedError(BanditloopError):
    """The route exists, with the method ``allowed``."""

    code = "method_not_allowed"

    def __init__(self, message: str, target: str | None = None, *, allowed: str = "") -> None:
        super().__init__(message, target)
        self.allowed = allowed


class UnknownUserError(BanditloopError):
    """Nothing is known of this user, and the request brought no history to go by."""

    code = "unknown_user"


class UnknownEventError(BanditloopError):
    """No decision of the log has this event_id."""

    code = "unknown_event"


class UnknownErasureError(BanditloopError):
    """There is no erasure of this name, or it was complete long ago."""

    code = "unknown_erasure"


class ProfilesLeftError(BanditloopError):
    """A user is erased, but for their entry in a file of profiles, which could not be written."""

    code = "profiles_left"


class UnknownItemError(BanditloopError):
    """There is no item of this id."""

    code = "unknown_item"


class NoCandidatesError(BanditloopError):
    """The sources proposed nothing, or everything was excluded."""

    code = "no_candidates"


class NotReadyError(BanditloopError):
    """No snapshot is loaded yet."""

    code = "not_ready"


class LogUnavailableError(BanditloopError):
    """The log cannot be reached, so the event was not made durable."""

    code = "log_unavailable"


class SpecError(BanditloopError):
    """A policy spec is wrong."""

    code = "invalid_spec"


class ArtifactError(BanditloopError):
    """A source artifact is missing, corrupt, or of another format version."""

    code = "invalid_artifact"


class SourceError(BanditloopError):
    """A candidate source failed to answer; the decision can be made without it."""

    code = "source_failed"


class SnapshotError(BanditloopError):
    """A snapshot or checkpoint cannot be loaded."""

    code = "invalid_snapshot"


class UnknownSnapshotError(SnapshotError):
    """No stored snapshot has this id."""

    code = "unknown_snapshot"


class SnapshotConflictError(SnapshotError):
    """A snapshot cannot be pinned, unpinned or rolled back to as things are."""

    code = "snapshot_conflict"


class ConsoleOffError(BanditloopError):
    """The service runs without the process that answers what takes long: ``console: off``."""

    code = "console_off"


class OfficeGoneError(BanditloopError):
    """The process that answers what takes long does not answer now."""

    code = "office_gone"


class OfficeBusyError(BanditloopError):
    """Too many wait for what takes long."""

    code = "office_busy"


class StillWorkingError(BanditloopError):
    """An answer takes longer than a request waits: it is made meanwhile, so ask again."""

    code = "still_working"


class CodecError(BanditloopError):
    """Bytes of the log do not decode to a valid record."""

    code = "invalid_record"


class UnknownKindError(CodecError):
    """A record of a kind, or in a format, that this build does not know; ``kind`` names it."""

    code = "unknown_kind"

    def __init__(self, message: str, target: str | None = None, *, kind: str = "") -> None:
        super().__init__(message, target)
        self.kind = kind


class NewerBuildError(BanditloopError):
    """A later build has written it: this one cannot know what it means, and changes nothing."""

    code = "newer_build"


class RefusedError(BanditloopError):
    """An entry cannot be applied, as its bytes and its blobs' show to everybody."""

    code = "refused"


class MissingBlobError(BanditloopError):
    """Bytes that the log names are not stored here, or are not those of their digest."""

    code = "missing_blob"


class StalledError(BanditloopError):
    """An entry could not be applied, and the log does not say why: learning stops before it.

    ``position`` and ``kind`` are the entry's; ``reason`` is what went wrong.
    """

    code = "stalled"

    def __init__(self, position: str, kind: str, reason: str) -> None:
        super().__init__(f"the {kind} at {position} cannot be applied: {reason}", "log")
        self.position, self.kind, self.reason = position, kind, reason


class ArchiveError(BanditloopError):
    """The archive is damaged, has a gap, belongs to another log, or its address is wrong."""

    code = "invalid_archive"


class UsersBackupError(BanditloopError):
    """A backup of who users are is damaged, or of another space, salt or build."""

    code = "invalid_users_backup"


class RetentionError(BanditloopError):
    """A log cannot begin there: something needs what is before."""

    code = "cannot_cut"


class LogGapError(BanditloopError):
    """Neither the stream nor the archive holds a part of the log any more."""

    code = "log_gap"


class BadRowError(BanditloopError):
    """A row of a log that is to be evaluated is malformed."""

    code = "bad_row"


class ReplayError(BanditloopError):
    """A log and a policy that cannot be evaluated as asked."""

    code = "cannot_replay"


class RowsWaitError(ReplayError):
    """A log whose decisions all wait for their windows yet: it has no rows to evaluate."""

    code = "rows_wait"


class DataUnavailableError(BanditloopError):
    """A data set could not be fetched or does not have the expected checksum."""

    code = "data_unavailable"


class DataSetError(BanditloopError):
    """A data set is missing, damaged or of another format, or cannot be made of what was given."""

    code = "invalid_data_set"


class StartupError(BanditloopError):
    """The service cannot start here: a port is taken, or a part did not come up."""

    code = "cannot_start"


class RefreshError(BanditloopError):
    """A refresh of sources did not come to an end; the artifact that served serves on."""

    code = "refresh_failed"


class NothingToLearnError(RefreshError):
    """The log of a window has no rewarded decision of a known user, and no data set was given."""

    code = "nothing_to_learn"


class TrainingDiedError(RefreshError):
    """The process that trains has ended without a word."""

    code = "training_died"


class TrainingMemoryError(RefreshError):
    """The process that trains ran out of memory."""

    code = "training_out_of_memory"


class LackingItemsError(RefreshError):
    """A trained artifact knows too many items that the catalogue lacks."""

    code = "items_lacking"


class WorseArtifactError(RefreshError):
    """The trained artifact is worse than the one that serves, by more than its interval."""

    code = "worse_artifact"


class RefreshRunningError(RefreshError):
    """Another refresh of the same policy is under way."""

    code = "refresh_running"


class StoreUnreadableError(RefreshError):
    """The store of artifacts cannot be read where it has to be, or not be written."""

    code = "store_unreadable"
