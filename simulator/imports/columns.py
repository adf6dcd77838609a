"""Which column is what, by its name: usual names are recognised, and nothing is guessed.

A name is compared without case, separators and the type that RecBole writes after it, so that
``user_id``, ``userId``, ``User-ID`` and ``user_id:token`` are one name. Strong names come before
weak ones: a session is the user only where no column is called one. Two columns that are equally
likely are an error that says what to write.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bandits.errors import DataSetError

GivenColumn = str | int | None
"""A column by its name or its place from 1; None: there is none."""
GivenColumns = Mapping[str, GivenColumn | Sequence[GivenColumn]]
"""Columns of items or users by what they are; several may be texts."""


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """The usual names of one kind of column.

    Attributes:
        strong: Stems that name it, such as ``user``.
        weak: Stems that name it only where no strong one is there.
        endings: What may follow a stem, such as ``id``; a stem alone comes after such a name.
        exact: Whole names, as strong as the strong stems.
        required: Whether it must be found.
    """

    strong: frozenset[str]
    weak: frozenset[str] = frozenset()
    endings: frozenset[str] = frozenset()
    exact: frozenset[str] = frozenset()
    required: bool = False
    _ranks: dict[str, tuple[int, str, int]] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        """List every name with its tier, its stem, and its place within the stem."""
        for tier, stems in ((1, self.weak), (0, self.strong)):
            for stem in stems:
                self._ranks[stem] = (tier, stem, 1)
                self._ranks.update((stem + ending, (tier, stem, 0)) for ending in self.endings)
        self._ranks.update((name, (0, name, 0)) for name in self.exact)

    def rank(self, name: str) -> tuple[int, str, int] | None:
        """Return how well a column's name fits: tier, stem, and place; None if it does not."""
        plain = plain_name(name)
        return self._ranks.get(plain) or self._ranks.get(plain_name(name.rpartition(".")[2]))


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ID = _words("id ids idx index key no nr num number code uuid guid hash idhash")
_USERS = _words(
    "user usr visitor customer cust client member reviewer rater voter buyer shopper reader viewer"
    " listener player subscriber consumer account person household student learner guest"
    " fullvisitor userpseudo"
)
_OBJECTS = _words("content stock goods document doc media offer show business page place poi ad")
"""Items by their id; the word alone may be a text, a number or an amount."""
_ITEMS = _words(
    "item product prod article news movie film book song track artist game app video anime recipe"
    " course hotel listing episode podcast beer restaurant venue post"
)

EVENT_COLUMNS: Mapping[str, ColumnNames] = {
    "user": ColumnNames(
        _USERS,
        _words(
            "session sess cookie device browser visit anonymous anon distinct profile username"
            " reviewername"
        ),
        _ID,
        _words("uid steamid"),
        required=True,
    ),
    "item": ColumnNames(
        _ITEMS,
        _words("title url uri itemname producttitle gametitle") | _OBJECTS,
        _ID,
        _words("iid asin isbn sku productskuhash") | {name + "id" for name in _OBJECTS},
        required=True,
    ),
    "time": ColumnNames(
        _words(
            "time timestamp datetime ts eventtime eventtimestamp eventdatetime eventts unixtime"
            " unixtimestamp unixreviewtime epoch clicktime interactiontime servertimestamp"
            " requesttimestamp servertimestampepoch"
        ),
        _words(
            "date day created createdat eventdate reviewtime reviewdate orderdate purchasedate"
            " invoicedate visitdate ratedat occurredat createtime creationdate transactiondate"
            " transactiontime purchasetime ordertime viewtime visittime logtime starttime posted"
            " orderpurchasetimestamp ratingdate ratingtimestamp tdat"
        ),
        _words("s ms us ns sec seconds millis utc gmt"),
    ),
    "type": ColumnNames(
        _words("event type behavior behaviour action activity interaction feedback"),
        _words("verb operation"),
        _words("type name kind"),
    ),
    "value": ColumnNames(
        _words("rating score stars value overall preference"),
        endings=_words("value score"),
        exact=_words("ratings starrating userrating bookrating reviewrating reviewscore"),
    ),
}
"""The columns of a table of events."""

ITEM_COLUMNS: Mapping[str, ColumnNames] = {
    "item": ColumnNames(
        _ITEMS,
        frozenset({"id"}) | _OBJECTS,
        _ID,
        _words("iid asin isbn sku") | {name + "id" for name in _OBJECTS},
        required=True,
    ),
    "available_from": ColumnNames(_words("availablefrom availablesince")),
    "available_until": ColumnNames(_words("availableuntil availableto")),
}
"""The columns of a table of items that mean something; every other one is a feature."""

USER_COLUMNS: Mapping[str, ColumnNames] = {
    "user": ColumnNames(_USERS, _words("id"), _ID, _words("uid steamid"), required=True),
}
"""The columns of a table of users that mean something; every other one is a feature."""


def recognise_columns(
    names: Sequence[str],
    file: str,
    *,
    wanted: Mapping[str, ColumnNames] = EVENT_COLUMNS,
    given: Mapping[str, GivenColumn] | None = None,
    option: str = "--columns",
) -> dict[str, str]:
    """Return the column of each kind that the names tell, or that is given.

    Args:
        names: The table's columns.
        file: The file, for errors.
        wanted: The kinds of columns to look for.
        given: Columns that are known, which are not looked for.
        option: The option that gives them, for errors.

    Returns:
        The column's name by kind; a kind that is not there, or that is given as None, is left out.

    Raises:
        DataSetError: A required column is not there, two columns could be it, or a given one is
            not there. The error lists the columns, and says what to write.
    """
    _check_names(names, file)
    found = _given_columns(names, file, wanted, given or {}, option)
    taken = set(found.values())

    for kind, usual in wanted.items():
        if kind in (given or {}):
            continue
        likely = _likeliest(names, usual, taken)
        if len(likely) > 1:
            raise DataSetError(
                f"{file}: {listed(likely, 'and')} could each be the {kind}; say which:"
                f" {option} '{{{kind}: {yaml_name(likely[0])}}}'",
                f"columns.{kind}",
            )
        if likely:
            found[kind] = likely[0]
        elif usual.required:
            raise DataSetError(
                f"{file}: no column has a usual name for the {kind}; the columns are"
                f" {listed(names, 'and')}; say which:"
                f" {option} '{{{kind}: {_example(names, found)}}}'",
                f"columns.{kind}",
            )
    return found


def _check_names(names: Sequence[str], file: str) -> None:
    """Raise DataSetError if two columns have one name."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataSetError(
            f"{file}: two columns are called {twice[0]!r}; rename one of them, or say that the"
            " file has no header",
            "columns",
        )


def _given_columns(
    names: Sequence[str],
    file: str,
    wanted: Mapping[str, ColumnNames],
    given: Mapping[str, GivenColumn],
    option: str,
) -> dict[str, str]:
    """Return the columns that were given, by their names in the file."""
    found = {}
    for kind, column in given.items():
        if kind not in wanted:
            raise DataSetError(
                f"{option} names {kind!r}, which is no kind of column; there are"
                f" {listed(wanted, 'and')}",
                f"columns.{kind}",
            )
        if column is None:
            if wanted[kind].required:
                raise DataSetError(f"{option}: a {kind} cannot be left out", f"columns.{kind}")
            continue
        found[kind] = column_named(names, column, file, f"{option} {kind}")
    return found


def column_named(names: Sequence[str], column: str | int, file: str, where: str) -> str:
    """Return the name that a file has for a column.

    Args:
        names: The file's columns.
        column: The column by its name, as it is or as names are compared, or its place from 1.
        file: The file, for errors.
        where: What names the column, for errors.

    Raises:
        DataSetError: There is no such column; the error lists those there are.
    """
    if isinstance(column, int) and not isinstance(column, bool) and 1 <= column <= len(names):
        return names[column - 1]
    if column in names:
        return str(column)

    alike = [name for name in names if plain_name(name) == plain_name(str(column))]
    if len(alike) == 1:
        return alike[0]
    near = difflib.get_close_matches(str(column), list(names), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise DataSetError(
        f"{file}: there is no column {column!r}, which {where} names; the columns are"
        f" {listed(names, 'and')}{hint}",
        "columns",
    )


def _likeliest(names: Sequence[str], usual: ColumnNames, taken: Iterable[str]) -> list[str]:
    """Return the columns of the best tier; one alone where the names differ only by an ending."""
    ranks = {name: rank for name in names if name not in taken and (rank := usual.rank(name))}
    best = min((tier for tier, _, _ in ranks.values()), default=0)
    likely = {name: rank for name, rank in ranks.items() if rank[0] == best}

    # "user" beside "user_id" is a name, not an id.
    if len({stem for _, stem, _ in likely.values()}) == 1:
        place = min(place for *_, place in likely.values())
        likely = {name: rank for name, rank in likely.items() if rank[2] == place}
    return list(likely)


def plain_name(name: str) -> str:
    """Return a name as names are compared: small letters and digits alone."""
    name = re.sub(r":(token|token_seq|float|float_seq)$", "", name.strip("\ufeff \t\r\n\"'"))
    return re.sub(r"[\W_]+", "", name).lower()


def looks_like_header(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether the first of a file's rows is its header.

    It is if its cells are filled with different words, none of them a number or a time; the first
    may be empty, above row numbers, and of three or more the last, where each line ends with a
    separator. So rows of words alone would be taken for a header: their "columns" are then in the
    error or in the report, and an option says otherwise.
    """
    if not rows:
        return False
    first = [cell.strip("\ufeff \t\r\n\"'") for cell in rows[0]]
    if len(set(first)) < len(first) or not all(first[1 : max(2, len(first) - 1)]):
        return False
    return not any(_NUMBER_OR_TIME.match(cell) for cell in first)


_NUMBER_OR_TIME = re.compile(
    r"[-+]?[\d.,]*\d([eE][-+]?\d+)?%?$|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?![\w-])|\d{4}-\d\d-\d\dT"
)


def listed(names: Iterable[str], last: str) -> str:
    """Return names in a row, the last one after a word; long lists are cut, and say so."""
    shown = [repr(name) if name != name.strip() or not name else name for name in names]
    if len(shown) > MOST_LISTED:
        shown = [*shown[:MOST_LISTED], f"{len(shown) - MOST_LISTED} more"]
    if len(shown) < 2:
        return "".join(shown)
    return f"{', '.join(shown[:-1])} {last} {shown[-1]}"


MOST_LISTED = 30


def _example(names: Sequence[str], found: Mapping[str, str]) -> str:
    """Return the first column that is nothing yet, for the option in an error."""
    free = [name for name in names if name not in found.values()]
    return yaml_name(free[0]) if free else "NAME"


def yaml_name(name: str) -> str:
    """Return a column's name as it is written in the option's YAML."""
    return name if re.fullmatch(r"[A-Za-z_][\w.-]*", name) else f'"{name}"'
