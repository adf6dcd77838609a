"""Errors as HTTP statuses and bodies."""

from collections.abc import Mapping

from banditloop_client import schemas
from bandits import errors
from bandits.errors import BanditloopError
from serve_app.api.wire import encode

STATUS: Mapping[type[BanditloopError], int] = {
    errors.InvalidInputError: 422,
    errors.MalformedBodyError: 400,
    errors.InvalidFieldError: 422,
    errors.NonFiniteNumberError: 422,
    errors.EmptyActionsError: 422,
    errors.DuplicateActionError: 422,
    errors.TooManyActionsError: 422,
    errors.TooManyFeaturesError: 422,
    errors.InvalidEventIdError: 422,
    errors.InvalidUserIdError: 422,
    errors.MergeWithItselfError: 422,
    errors.MergeRingError: 409,
    errors.AlreadyMergedError: 409,
    errors.TooManyMergedError: 409,
    errors.IncomparableError: 422,
    errors.EventConflictError: 409,
    errors.ActivityConflictError: 409,
    errors.TooManyActivityEventsError: 422,
    errors.UnknownTypeError: 422,
    errors.UnknownSignalError: 422,
    errors.TimeOutOfRangeError: 422,
    errors.TooManyItemsError: 422,
    errors.InvalidItemIdError: 422,
    errors.TextTooLongError: 422,
    errors.InvalidVectorError: 422,
    errors.VectorLengthError: 422,
    errors.InvalidTimesError: 422,
    errors.BodyTooLargeError: 413,
    errors.BodyTimeoutError: 408,
    errors.UnauthorizedError: 401,
    errors.ForbiddenError: 403,
    errors.RateLimitedError: 429,
    errors.InvalidPmfError: 500,
    errors.UnknownPolicyError: 404,
    errors.UnknownSpaceError: 404,
    errors.NotFoundError: 404,
    errors.MethodNotAllowedError: 405,
    errors.UnknownUserError: 404,
    errors.UnknownErasureError: 404,
    errors.UnknownEventError: 404,
    errors.ProfilesLeftError: 503,
    errors.UnknownItemError: 404,
    errors.NoCandidatesError: 409,
    errors.NotReadyError: 503,
    errors.LogUnavailableError: 503,
    errors.SourceError: 502,
    errors.SpecError: 500,
    errors.ArtifactError: 422,
    errors.SnapshotError: 500,
    errors.UnknownSnapshotError: 404,
    errors.SnapshotConflictError: 409,
    errors.ConsoleOffError: 503,
    errors.OfficeGoneError: 503,
    errors.OfficeBusyError: 503,
    errors.StillWorkingError: 503,
    errors.CodecError: 500,
    errors.UnknownKindError: 500,
    errors.NewerBuildError: 500,
    errors.RefusedError: 409,
    errors.MissingBlobError: 500,
    errors.StalledError: 503,
    errors.ArchiveError: 500,
    errors.UsersBackupError: 500,
    errors.RetentionError: 500,
    errors.LogGapError: 500,
    errors.BadRowError: 500,
    errors.ReplayError: 500,
    errors.RowsWaitError: 500,
    errors.DataUnavailableError: 422,
    errors.DataSetError: 500,
    errors.StartupError: 500,
    errors.RefreshError: 500,
    errors.NothingToLearnError: 422,
    errors.TrainingDiedError: 500,
    errors.TrainingMemoryError: 507,
    errors.LackingItemsError: 422,
    errors.WorseArtifactError: 409,
    errors.RefreshRunningError: 409,
    errors.StoreUnreadableError: 503,
}


def status_of(error: BanditloopError) -> int:
    """Return the status of an error: that of its own class, or of the nearest above it."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def error_bytes(error: BanditloopError) -> bytes:
    """Return the body that tells of an error."""
    return encode(schemas.ErrorResponse(schemas.ErrorBody(error.code, error.message, error.target)))
