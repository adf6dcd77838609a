"""Features of items as columns, so that a condition is asked of all of them at once."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import chain, compress, count, repeat
from operator import add
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from banditloop_client.schemas import Item
from bandits.values import FeatureMap
from policies.rules.kinds import Kind

LACKING: Final = 0
CODES: Final[dict[Kind, int]] = {"number": 1, "text": 2, "flag": 3, "texts": 4}
"""The kind of a value, as a column holds it."""
CODES_BY_TYPE: Final[dict[type, int]] = {int: 1, float: 1, str: 2, bool: 3, list: 4}
ID: Final = "id"
LEAST_ROWS: Final = 64
LEAST_REPLACED: Final = 10_000
"""Texts and lists that have been replaced, before those that nobody has are looked for."""
Bools = NDArray[np.bool_]
Codes = NDArray[np.int32]


class Vocabulary:
    """The distinct texts of some columns, and the distinct lists of them, each with a code.

    Code 0 is that of the empty one, and stands where there is none.
    """

    def __init__(self) -> None:
        self.texts = [""]
        self.lists = 1
        self._text_codes = {"": 0}
        self._list_codes: dict[tuple[str, ...], int] = {(): 0}
        self._members = np.zeros((2, 0), np.int32)
        self._newer: list[Codes] = []
        self._asked: dict[tuple[str, str], NDArray[Any]] = {}
        self._pairs, self._paired = np.zeros(0, np.int64), 0
        self._lengths = np.zeros(0, np.float64)

    def code(self, text: str) -> int:
        """Return a text's code, a new one if it is new."""
        code = self._text_codes.get(text)
        if code is None:
            code = self._text_codes[text] = len(self.texts)
            self.texts.append(text)
        return code

    def codes(self, texts: Sequence[str]) -> Codes:
        """Return the codes of texts, new ones of those that are new: int32[n]."""
        known = self._text_codes
        if newer := [text for text in dict.fromkeys(texts) if text not in known]:
            known.update(zip(newer, count(len(self.texts))))
            self.texts += newer
        return _looked_up(known, texts)

    def list_codes(self, lists: Sequence[tuple[str, ...]]) -> Codes:
        """Return the codes of lists, new ones of those that are new: int32[n]."""
        known = self._list_codes
        if newer := [texts for texts in dict.fromkeys(lists) if texts not in known]:
            codes = np.arange(self.lists, self.lists + len(newer), dtype=np.int32)
            known.update(zip(newer, codes.tolist(), strict=True))
            self.lists += len(newer)
            sizes = np.fromiter(map(len, newer), np.intp, len(newer))
            texts = self.codes(list(chain.from_iterable(newer)))
            self._newer.append(np.stack([np.repeat(codes, sizes), texts]))
        return _looked_up(known, lists)

    def __len__(self) -> int:
        """How many texts and lists there are."""
        return len(self.texts) + self.lists

    def only(self, texts: Bools, lists: Bools) -> tuple["Vocabulary", Codes, Codes]:
        """Return a vocabulary of some, and by the codes of this one the codes of that one.

        Args:
            texts: which texts, bool[texts]; those of the lists are there, too.
            lists: which lists, bool[lists].
        """
        kept = Vocabulary()
        text_codes = np.zeros(len(self.texts), np.int32)
        list_codes = np.zeros(self.lists, np.int32)
        for code in np.flatnonzero(texts).tolist():
            text_codes[code] = kept.code(self.texts[code])
        for listed, code in self._list_codes.items():
            if lists[code]:
                list_codes[code] = kept.list_code(listed)
        return kept, text_codes, list_codes

    def known(self, text: str) -> int:
        """Return a text's code; -1 if no item has it."""
        return self._text_codes.get(text, -1)

    def list_code(self, texts: tuple[str, ...]) -> int:
        """Return a list's code, a new one if it is new."""
        code = self._list_codes.get(texts)
        if code is None:
            code = int(self.list_codes([texts])[0])
        return code

    def list_of(self, code: int) -> list[str]:
        """Return the list of a code."""
        which, texts = self.members
        return [self.texts[text] for text in texts[which == code].tolist()]

    @property
    def members(self) -> Codes:
        """Of all lists, int32[2, m]: which list, and which text is in it."""
        if self._newer:
            self._members = np.concatenate([self._members, *self._newer], axis=1)
            self._newer = []
        return self._members

    def lists_with(self, text: str) -> Bools:
        """Return which lists a text is in, bool[lists]."""
        found = self._asked.get((IN, text))
        if found is None or found.size < self.lists:
            which, texts = self.members
            found = np.zeros(self.lists, np.bool_)
            found[which[texts == self.known(text)]] = True
            self._remember((IN, text), found)
        return found

    def are_in(self, texts: Codes, lists: Codes) -> Bools:
        """Return which of some texts is in the list beside it, bool[n].

        Args:
            texts: int32[n], the codes of the texts; below 0, it is in none.
            lists: int32[n], those of the lists.
        """
        members = self.members
        if self._paired < members.shape[1]:
            newer = np.unique(_paired(*members[:, self._paired :]))
            self._pairs = np.concatenate([self._pairs, newer])  # newer lists have higher codes
            self._paired = members.shape[1]
        if not self._pairs.size:
            return np.zeros(lists.size, np.bool_)
        asked = _paired(lists, texts)
        at = np.minimum(np.searchsorted(self._pairs, asked), self._pairs.size - 1)
        found: Bools = self._pairs[at] == asked
        return found

    @property
    def lengths(self) -> NDArray[np.float64]:
        """How long each list is, float64[lists]."""
        if self._lengths.size < self.lists:
            self._lengths = np.bincount(self.members[0], minlength=self.lists).astype(np.float64)
        return self._lengths

    def texts_that(
        self, what: str, argument: str, holds: Callable[[str], bool], codes: Codes
    ) -> Bools:
        """Return of which texts something holds, bool[n]; each distinct one is looked at once.

        Args:
            what: a name of what is asked.
            argument: by what.
            holds: says it of one text.
            codes: int32[n], those of the texts; none is below 0.
        """
        known = self._asked.get((what, argument), NO_ANSWERS)
        if known.size < len(self.texts):
            newer = np.full(len(self.texts) - known.size, NOT_ASKED)
            known = np.concatenate([known, newer])
            self._remember((what, argument), known)

        found = known[codes]
        asked = found == NOT_ASKED
        if asked.any():
            for code in set(codes[asked].tolist()):
                known[code] = holds(self.texts[code])
            found = known[codes]
        return found.astype(np.bool_)

    def _remember(self, question: tuple[str, str], answers: NDArray[Any]) -> None:
        """Keep the answers to a question, and not so many as to fill the memory."""
        self._asked.pop(question, None)
        kept = MOST_REMEMBERED // max(answers.size, LEAST_ROWS)
        while len(self._asked) >= max(kept, 1):
            del self._asked[next(iter(self._asked))]
        self._asked[question] = answers


def _paired(lists: Codes, texts: Codes) -> NDArray[np.int64]:
    return (lists.astype(np.int64) << 32) + texts


def _looked_up(codes: dict[Any, int], keys: Sequence[Hashable]) -> Codes:
    return np.fromiter(map(codes.__getitem__, keys), np.int32, len(keys))


IN: Final = "in"
NOT_ASKED: Final = np.int8(-1)
NO_ANSWERS: Final = np.zeros(0, np.int8)
MOST_REMEMBERED: Final = 2**25
"""Answers about texts, and about lists of them, that are remembered: a byte each."""


class Column:
    """The values of one feature: ``kinds`` int8[N]; ``values`` float64[N]; ``codes`` int32[N].

    A number or a flag is in ``values``, a text or a list of them in ``codes``. ``counts``: by kind,
    how many items have one; ``only_kind``: that of all items, None if there are several.
    """

    def __init__(self, rows: int) -> None:
        self.counts = [0] * (1 + len(CODES))
        self.only_kind: int | None = None
        self.kinds = np.zeros(rows, np.int8)
        self.values = np.zeros(rows, np.float64)
        self.codes = np.zeros(rows, np.int32)

    def count(self, counts: Iterable[int]) -> None:
        """Let so many items have a value of each kind."""
        self.counts = [*counts]
        kinds = [kind for kind, items in enumerate(self.counts) if items]
        self.only_kind = kinds[0] if len(kinds) == 1 else None

    def put(self, row: int, kind: int) -> None:
        """Let the item of a row have a value of a kind."""
        was = int(self.kinds[row])
        if was == kind:
            return
        self.kinds[row] = kind
        self.counts[was] -= 1
        self.counts[kind] += 1
        self.count(self.counts)

    def add(self, kind: int, items: int) -> None:
        """Let so many items more have a value of a kind; below 0, less."""
        self.counts[kind] += items
        self.count(self.counts)

    def grow(self, rows: int) -> None:
        """Make room."""
        for name in ("kinds", "values", "codes"):
            old = getattr(self, name)
            new = np.zeros(rows, old.dtype)
            new[: old.size] = old
            setattr(self, name, new)


def _of(
    values: Sequence[Any], counts: Sequence[int], kinds: NDArray[np.int8], *names: Kind
) -> tuple[Sequence[Any], Bools | slice]:
    """Return the values of some kinds, and where they are.

    Args:
        values: n of them.
        counts: by kind, how many there are.
        kinds: int8[n].
        names: of the kinds.
    """
    codes = [CODES[name] for name in names]
    if sum(counts[code] for code in codes) == len(values):
        return values, slice(None)
    at: Bools = kinds == codes[0]
    for code in codes[1:]:
        at = at | (kinds == code)
    return [*compress(values, at)], at


class ItemColumns:
    """Some features of items, a row each; the rows of deleted items are used again.

    Row 0 is that of an item of which nothing is known.
    """

    def __init__(self, names: Sequence[str], items: Iterable[Item] = ()) -> None:
        """Begin with some items.

        Args:
            names: the features that are asked about; ``id`` is the item's.
            items: the first ones; of very many, ``load`` is quicker.
        """
        self.vocabulary = Vocabulary()
        self.columns = {name: Column(LEAST_ROWS) for name in names}
        self.place: dict[str, int] = {}
        self._size, self._free = 1, list[int]()
        self._replaced = 0
        for item in items:
            self.put(item.id, item.features)

    def __len__(self) -> int:
        """How many rows there are, those of deleted items among them."""
        return self._size

    def load(self, ids: Sequence[str], values: Sequence[Sequence[Any]]) -> None:
        """Take in items that are new, many at once.

        Args:
            ids: theirs, each once.
            values: by column, the value of each item; None: it lacks it.
        """
        first, self._size = self._size, self._size + len(ids)
        self.place.update(zip(ids, range(first, self._size), strict=True))
        rows = slice(first, self._size)
        for (name, column), own in zip(self.columns.items(), values, strict=True):
            self._room(column, self._size)
            known = ids if name == ID else own
            kinds = np.fromiter(
                map(CODES_BY_TYPE.get, map(type, known), repeat(LACKING)), np.int8, len(ids)
            )
            column.kinds[rows] = kinds
            counts = np.bincount(kinds, minlength=len(column.counts)).tolist()
            column.count(map(add, column.counts, counts))

            # Most columns are of one kind.
            if counts[CODES["number"]] or counts[CODES["flag"]]:
                numbers, at = _of(known, counts, kinds, "number", "flag")
                column.values[rows][at] = np.array(numbers, np.float64)
            if counts[CODES["text"]]:
                texts, at = _of(known, counts, kinds, "text")
                column.codes[rows][at] = self.vocabulary.codes(texts)
            if counts[CODES["texts"]]:
                lists, at = _of(known, counts, kinds, "texts")
                column.codes[rows][at] = self.vocabulary.list_codes([*map(tuple, lists)])

    def put(self, item_id: str, features: FeatureMap) -> None:
        """Let these be the features of an item."""
        row = self.place.get(item_id)
        if row is None:
            row = self._new_row()
            self.place[item_id] = row
        for name, column in self.columns.items():
            self._set(column, row, item_id if name == ID else features.get(name))
        self._forget()

    def drop(self, item_id: str) -> None:
        """Forget an item."""
        row = self.place.pop(item_id, None)
        if row is not None:
            self._free.append(row)
            for column in self.columns.values():
                self._set(column, row, None)
                column.add(LACKING, -1)
            self._forget()

    def rows(self, ids: Sequence[str]) -> NDArray[np.intp]:
        """Return the row of each item; of one that is not there, the row of nothing."""
        return np.fromiter(map(self.place.get, ids, repeat(0)), np.intp, len(ids))

    def features(self, item_id: str) -> FeatureMap:
        """Return what is kept of an item's features."""
        row, known = self.place.get(item_id, 0), dict[str, Any]()
        for name, column in self.columns.items():
            kind, code = int(column.kinds[row]), int(column.codes[row])
            if kind == CODES["text"]:
                known[name] = self.vocabulary.texts[code]
            elif kind == CODES["texts"]:
                known[name] = self.vocabulary.list_of(code)
            elif kind != LACKING:
                value = float(column.values[row])
                known[name] = value != 0 if kind == CODES["flag"] else value
        return known

    def _new_row(self) -> int:
        """Return the row of an item more, which lacks everything."""
        if self._free:
            row = self._free.pop()
        else:
            row, self._size = self._size, self._size + 1
        for column in self.columns.values():
            self._room(column, self._size)
            column.add(LACKING, 1)
        return row

    def _room(self, column: Column, rows: int) -> None:
        if column.kinds.size < rows:
            column.grow(max(rows, 2 * column.kinds.size))

    def _forget(self) -> None:
        """Take out texts and lists that no item has any more, once they may be half of all."""
        if self._replaced < max(LEAST_REPLACED, len(self.vocabulary) // 2):
            return
        self._replaced = 0
        texts = np.zeros(len(self.vocabulary.texts), np.bool_)
        lists = np.zeros(self.vocabulary.lists, np.bool_)
        for column in self.columns.values():
            texts[column.codes[column.kinds == CODES["text"]]] = True
            lists[column.codes[column.kinds == CODES["texts"]]] = True

        self.vocabulary, text_codes, list_codes = self.vocabulary.only(texts, lists)
        for column in self.columns.values():
            for kind, codes in ((CODES["text"], text_codes), (CODES["texts"], list_codes)):
                rows = column.kinds == kind
                column.codes[rows] = codes[column.codes[rows]]

    def _set(self, column: Column, row: int, value: object) -> None:
        kind, number, code = LACKING, 0.0, 0
        if isinstance(value, bool):
            kind, number = CODES["flag"], float(value)
        elif isinstance(value, int | float):
            kind, number = CODES["number"], float(value)
        elif isinstance(value, str):
            kind, code = CODES["text"], self.vocabulary.code(value)
        elif isinstance(value, list | tuple):
            kind, code = CODES["texts"], self.vocabulary.list_code(tuple(value))
        self._replaced += bool(column.codes[row]) and column.codes[row] != code
        column.put(row, kind)
        column.values[row], column.codes[row] = number, code
