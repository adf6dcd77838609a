"""The file of profiles: what is known of a data set's users, by pseudonym.

Parquet, a row per user, in the order of the pseudonyms:

    user      string         under the salt that the log is written with
    items     list<string>   what the user interacted with, oldest first, the last KEPT of them
    types     list<string>   of each item's latest event; null where there is none
    times     list<timestamp[ms, UTC]>   the same
    weights   list<float>    how strongly each interaction speaks for its item

and where users did several things with one item, the latest event of each other type, oldest first,
the last KEPT of them: ``other_items``, ``other_types``, ``other_times``.

Its metadata says, under ``banditloop``, the format, which salt it was, and what data set and
artifact it belongs to. Ids of items, not places: an artifact of other items finds those it has.
"""

import contextlib
import os
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.errors import ArchiveError, ArtifactError
from policies.artifacts.events_before import EventsBefore, events_of
from policies.artifacts.histories import Histories
from policies.artifacts.profiles import Profiles, halves_of, take_rows_of
from policies.artifacts.source_artifact import Artifact
from policies.pseudonyms import pseudonym, salt_id

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

FORMAT = 1
KEPT = 1000
"""Items of a user that are kept."""
USERS_A_GROUP = 50_000
"""Users in each row group: what a reader holds beside what it makes."""
ABOUT = b"banditloop"
LATEST: Final = ("items", "types", "times")
"""Columns of the latest event of each item."""
OTHERS: Final = ("other_items", "other_types", "other_times")
"""Columns that a file lacks in which nobody did two things with one item."""
TARGET = "profiles"
LAYOUT: Mapping[str, Any] = {
    "compression": "zstd",
    "use_dictionary": ["items.list.element", "types.list.element"],
    "write_page_checksum": True,
    "store_schema": False,
}
"""How the file is written, as pyarrow takes it."""
MALFORMED = (ValueError, TypeError, KeyError, AttributeError, OSError, msgspec.MsgspecError)
"""Errors of reading a damaged Parquet file: pyarrow's own are ValueErrors or OSErrors."""


class AboutProfiles(msgspec.Struct, frozen=True, kw_only=True):
    """The metadata of a file of profiles.

    ``salt``: tells the salt of its pseudonyms from another; ``data``: the digest of the data set;
    ``artifact``: the version that was trained on it.
    """

    format: int
    salt: str
    data: str
    artifact: str


def write_profiles(
    path: Path,
    histories: Histories,
    *,
    salt: bytes,
    data: str = "",
    artifact: str = "",
    kept: int = KEPT,
    known_by: Callable[[bytes, str], str] = pseudonym,
) -> None:
    """Write what is known of users; whoever reads meanwhile sees the old file or the new one.

    Args:
        path: the file.
        histories: who interacted with what.
        salt: the key of their pseudonyms, that of the service which is to read the file.
        data: the digest of the data set.
        artifact: the version that was trained on it.
        kept: how many items of a user, at most.
        known_by: gives a user's pseudonym under the salt; of histories that were read off a log,
            users are named by it already.

    Raises:
        ArtifactError: it cannot be written.
    """
    import pyarrow as pa  # noqa: PLC0415 - it takes 30 MB, which whoever has no profiles spares
    import pyarrow.parquet as pq  # noqa: PLC0415

    about = AboutProfiles(format=FORMAT, salt=salt_id(salt), data=data, artifact=artifact)
    named = ["items", "types", "times", "weights", *(OTHERS if histories.others else ())]
    schema = pa.schema({"user": pa.string(), **{name: _kinds(pa)[name] for name in named}})

    pseudonyms = np.array([known_by(salt, user) for user in histories.users], dtype="U32")
    order = np.argsort(pseudonyms)
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            scratch.open("xb") as file,
            pq.ParquetWriter(file, schema, **LAYOUT) as writer,
        ):
            for at in range(0, len(order), USERS_A_GROUP):
                rows = order[at : at + USERS_A_GROUP]
                columns = [pa.array(pseudonyms[rows]), *_columns(pa, histories, rows, kept)]
                writer.write_table(pa.table(columns, schema=schema))
            writer.add_key_value_metadata({ABOUT: msgspec.json.encode(about)})

        with scratch.open("rb+") as written:
            os.fsync(written.fileno())
        scratch.replace(path)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written: {error}", TARGET) from error
    finally:
        scratch.unlink(missing_ok=True)


def _columns(pa: Any, histories: Histories, rows: NDArray[Any], kept: int) -> "Iterator[pa.Array]":
    """Yield the lists of some users, each user's oldest first."""
    of_all = np.full(histories.indices.size, -1) if histories.times is None else histories.times
    places, offsets = _last_places(histories.starts, of_all, rows, kept)
    items, names = pa.array(histories.items), pa.array(histories.type_names, pa.string())

    def lists(offsets: NDArray[Any], values: Any) -> Any:
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)

    def timed(times: NDArray[Any]) -> Any:
        return pa.array(times, pa.timestamp("ms", "UTC"), mask=times < 0)

    yield lists(offsets, items.take(pa.array(histories.indices[places])))
    if histories.types is None:
        yield lists(offsets, pa.nulls(places.size, pa.string()))
    else:
        yield lists(offsets, names.take(pa.array(histories.types[places])))
    yield lists(offsets, timed(of_all[places]))
    yield lists(offsets, pa.array(histories.weights[places]))

    others = histories.others
    if others is not None:
        places, offsets = _last_places(others.starts, others.times, rows, kept)
        yield lists(offsets, items.take(pa.array(others.indices[places])))
        yield lists(offsets, names.take(pa.array(others.types[places])))
        yield lists(offsets, timed(others.times[places]))


def _last_places(
    starts: NDArray[np.int64], times: NDArray[Any], rows: NDArray[Any], kept: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the places of the last values of some rows, each row's by time, and their offsets."""
    starts, places = take_rows_of(starts, rows)
    owner = np.repeat(np.arange(rows.size), np.diff(starts))
    order = np.lexsort((times[places], owner))
    last = np.repeat(starts[1:], np.diff(starts)) - np.arange(places.size) <= kept
    offsets = np.concatenate([[0], np.cumsum(np.minimum(np.diff(starts), kept))])
    return places[order[last]], offsets


def _kinds(pa: Any) -> dict[str, Any]:
    """Return the kind of each column of lists."""
    texts, times = pa.list_(pa.string()), pa.list_(pa.timestamp("ms", "UTC"))
    first = {"items": texts, "types": texts, "times": times, "weights": pa.list_(pa.float32())}
    return {**first, **dict(zip(OTHERS, (texts, texts, times), strict=True))}


def open_profiles(
    where: str | None, artifact: Artifact | None, salt: bytes, types: Collection[str] = ()
) -> tuple[Profiles | None, str]:
    """Return the profiles that a spec names, and what is to be said of them: "" if nothing is.

    Without them every user is answered as a stranger is. An artifact of format 1 brings its own.

    Args:
        where: a path or URI; None where the spec names none.
        artifact: whose items they are of.
        salt: the service's.
        types: what users did that is read beside, since rules ask about it.

    Raises:
        ArtifactError: the file is damaged, or cannot be reached.
    """
    if where is None or artifact is None:
        own = None if artifact is None else artifact.histories
        return (None if own is None else Profiles.of(own, salt)), ""

    from policies.storage import shown  # noqa: PLC0415 - which imports pyarrow

    with opened_profiles(where, coded=True) as file:
        if file is None:
            return None, (
                f"profiles: there is no file {shown(where)}, so every user is a stranger:"
                " banditloop train writes one"
            )
        try:
            about = about_profiles(file)
            if about.format != FORMAT:
                raise ArtifactError(
                    f"profiles: {shown(where)} has format {about.format}; this version of"
                    f" banditloop reads {FORMAT}",
                    TARGET,
                )
            if about.salt != salt_id(salt):
                return None, (
                    f"profiles: {shown(where)} was written under another salt, so every user is a"
                    " stranger: train again with the --data-dir or BANDITLOOP_SALT that serves"
                )
            return _read(file, artifact.items, types), ""
        except MALFORMED as error:
            reason = " ".join(str(error).split())[:200]
            raise ArtifactError(
                f"profiles: {shown(where)} is damaged ({reason}): banditloop train writes it anew",
                TARGET,
            ) from error


@contextlib.contextmanager
def opened_profiles(where: str, *, coded: bool = False) -> "Iterator[pq.ParquetFile | None]":
    """Open the file; None if there is none.

    Args:
        where: a path or URI.
        coded: whether each distinct item is to be read once.

    Raises:
        ArtifactError: it is none of profiles, or cannot be read.
    """
    import pyarrow.parquet as pq  # noqa: PLC0415 - it takes 30 MB

    from policies.storage import Storage, shown, split_name  # noqa: PLC0415

    def parquet(file: Any) -> "pq.ParquetFile":
        try:
            texts = LATEST[:2] if coded else ()
            read = [f"{name}.list.element" for name in texts]
            return pq.ParquetFile(file, read_dictionary=read, page_checksum_verification=True)
        except MALFORMED as error:
            raise ArtifactError(
                f"profiles: {shown(where)} is no file of profiles: banditloop train writes one",
                TARGET,
            ) from error

    try:
        if "://" not in where:
            with Path(where).open("rb") as file:
                yield parquet(file)
            return

        folder, name = split_name(where)
        with Storage(folder, "").open(name) as file:
            yield parquet(file)
    except FileNotFoundError:
        yield None
    except (ArchiveError, OSError) as error:
        raise ArtifactError(f"profiles: {shown(where)} cannot be read: {error}", TARGET) from error


def about_profiles(file: "pq.ParquetFile") -> AboutProfiles:
    """Return what the file says of itself."""
    return msgspec.json.decode((file.metadata.metadata or {})[ABOUT], type=AboutProfiles)


def _read(file: "pq.ParquetFile", items: tuple[str, ...], types: Collection[str]) -> Profiles:
    """Return the profiles of a file, over these items; what else they name is left out."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    known = pa.array(items, pa.string())
    others = OTHERS if OTHERS[0] in file.schema_arrow.names else ()
    columns = ["user", "items", "weights", *(("types", "times", *others) if types else ())]
    parts, events = [], []
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, columns=columns).combine_chunks()
        listed, weights = (table[name].chunk(0) for name in ("items", "weights"))
        lengths = listed.value_lengths().to_numpy()
        if not listed.value_lengths().equals(weights.value_lengths()):
            raise ValueError("a user has not as many weights as items")

        # Each distinct id is looked up once.
        coded = listed.flatten()
        places = pc.fill_null(pc.index_in(coded.dictionary, known), -1).to_numpy()
        indices = places[coded.indices.to_numpy()].astype(np.int32)
        values = weights.flatten().to_numpy()
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise ValueError("a weight is not a number of at least 0")

        kept = indices >= 0
        owner = np.repeat(np.arange(lengths.size), lengths)[kept]
        parts.append(
            (
                halves_of(table["user"].to_pylist()),
                np.bincount(owner, minlength=lengths.size),
                indices[kept],
                values[kept],
            )
        )
        if types:
            every = [LATEST, OTHERS] if others else [LATEST]
            events.append(events_of([table.select(each) for each in every], sorted(types)))
    return _joined(parts, EventsBefore(events, sorted(types)) if events else None)


def _joined(parts: "Sequence[tuple[NDArray[Any], ...]]", events: EventsBefore | None) -> Profiles:
    """Return the profiles of keys, counts, indices and weights, group after group."""
    if not parts:
        return Profiles(
            np.zeros((0, 2), np.uint64),
            np.zeros(1, np.int64),
            np.zeros(0, np.int32),
            np.zeros(0, np.float32),
        )
    keys, counts, indices, weights = map(np.concatenate, zip(*parts, strict=True))
    first, second = keys[:, 0], keys[:, 1]
    ascends = (first[1:] > first[:-1]) | ((first[1:] == first[:-1]) & (second[1:] > second[:-1]))
    if not ascends.all():
        raise ValueError("the users are not in the order of their pseudonyms")
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    return Profiles(keys, starts, indices, weights, events)
