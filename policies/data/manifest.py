"""The manifest of a data set: its files, counts, where it came from, and what was left out."""

import msgspec

from bandits.errors import DataSetError

FORMAT = 1
MANIFEST, EVENTS, ITEMS, USERS = "manifest.json", "events", "items.parquet", "users.parquet"
"""The names in a data set's folder; ``events`` is a folder of parts."""


class StoredFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the data set, by its path below the folder."""

    rows: int
    bytes: int
    sha256: str


class Counts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The counts of a data set.

    ``users`` and ``items`` are those with events, ``listed_items`` and ``listed_users`` the rows of
    the tables. Times are in ms since 1970, None where no event has one.
    """

    events: int = 0
    users: int = 0
    items: int = 0
    listed_items: int = 0
    listed_users: int = 0
    types: dict[str, int] = {}
    untimed: int = 0
    first_ms: int | None = None
    last_ms: int | None = None


class Dropped(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows left out for one reason, and where one of them was: ``row`` counts from 1, no header."""

    rows: int
    file: str = ""
    row: int = 0
    example: str = ""


class WeightOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How strongly an event speaks for its item; see ``policies.data.coded.event_weights``.

    ``types``: weight by event type, 1 where a type is not named. ``half_life_s``: after so many
    seconds an event counts half. ``rating_scale``: the lowest and highest ``value``, if it is a
    rating.
    """

    types: dict[str, float] = {}
    half_life_s: float | None = None
    rating_scale: tuple[float, float] | None = None


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A data set's ``manifest.json``.

    ``origin``: the files it was made of, as they were named. ``columns``: which of their columns
    was taken for what, and the unit of times. ``cleaning``: the options of each step. ``dropped``:
    rows of events left out, by reason; ``left_out``: values of items and users, by column.
    ``item_columns`` and ``user_columns``: the kind of each (number, flag, category, list, text,
    vector, time).
    """

    format: int
    name: str
    files: dict[str, StoredFile]
    counts: Counts
    weights: WeightOptions = WeightOptions()
    origin: list[str] = []
    preset: str | None = None
    columns: dict[str, str] = {}
    cleaning: dict[str, float | bool | str | None] = {}
    rows_read: int = 0
    dropped: dict[str, Dropped] = {}
    left_out: dict[str, int] = {}
    notes: list[str] = []
    item_columns: dict[str, str] = {}
    user_columns: dict[str, str] = {}
    created_with: dict[str, str] = {}

    @property
    def parts(self) -> list[str]:
        """The files of events, in their order."""
        return sorted(name for name in self.files if name.startswith(f"{EVENTS}/"))


class _AnyFormat(msgspec.Struct):
    format: int


def decode_manifest(data: bytes, where: str) -> Manifest:
    """Return a manifest.

    Args:
        data: the bytes of ``manifest.json``.
        where: the data set, for errors.

    Raises:
        DataSetError: it is damaged, or of another format.
    """
    try:
        written = msgspec.json.decode(data, type=_AnyFormat).format
        if written != FORMAT:
            raise DataSetError(
                f"{where} has format {written}; this version of banditloop reads {FORMAT}: import"
                " it again",
                MANIFEST,
            )
        return msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise DataSetError(
            f"{where}/{MANIFEST} is damaged ({error}): import the data set again", MANIFEST
        ) from error
