"""Reading a request's body: strictly first, then leniently where features are in another form.

And reading what is asked behind its path.

The second reading costs time only those whose features are not as a record has them. It also finds
the name of the entry at fault, which msgspec writes as ``[...]``.
"""

import asyncio
import json
import re
import sys
import types
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl

import msgspec
from msgspec import UnsetType

from bandits.errors import (
    BanditloopError,
    InvalidFieldError,
    InvalidInputError,
    MalformedBodyError,
    NonFiniteNumberError,
)
from bandits.log.codec import MALFORMED
from bandits.values import FeatureMap, Value
from policies.requests import (
    ActionRequest,
    BareRequest,
    Item,
    RankRequest,
    plain_features,
    plain_patch,
)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
FeaturesPatch = dict[str, Value | None]
"""Features of which some change; those that are null go."""
UNIONS = frozenset({Union, types.UnionType})
_ENTRY = "[...]"
_FIELD = re.compile(r"(?:unknown|required) field `([^`]*)`")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
ALIKE = 0.85
"""How alike a name has to be to one that is meant: ``vector``, ``userId``."""
_TIME = "a time is ISO 8601 with its zone, such as 2026-11-29T12:00:00Z"
_NO_JSON: tuple[tuple[bytes | tuple[bytes, ...], str], ...] = (
    (b"\x1f\x8b", "it is compressed by gzip, and bodies are sent as they are"),
    (b"\x28\xb5\x2f\xfd", "it is compressed by zstd, and bodies are sent as they are"),
    (b"\xef\xbb\xbf", "it begins with a byte order mark: leave it out"),
    ((b"\xff\xfe", b"\xfe\xff"), "it is UTF-16: send UTF-8"),
)
"""What bodies begin with that are something else, and what is said of them."""
_HALF = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])")
_ACTIONS, _FEATURES = b'"actions"', b'"features"'
_ACTIONS_AT = RankRequest.__struct_fields__.index("actions")
DECODED = 50
"""Items that are decoded before other requests get their turn."""
_any = msgspec.json.Decoder()
_item = msgspec.json.Decoder(Item)


class BodyDecoder(Protocol[T_co]):
    """Decodes bodies, such as msgspec's decoder of a type.

    ``type``: what errors are found by, and what is read leniently.
    """

    @property
    def type(self) -> Any: ...  # noqa: D102

    def decode(self, body: bytes | msgspec.Raw, /) -> T_co:
        """Return what a body holds.

        Raises:
            MsgspecError: it is wrong.
        """
        ...


def decode_body(body: bytes | msgspec.Raw, decoder: BodyDecoder[T]) -> T:
    """Decode a body.

    Args:
        body: JSON.
        decoder: of the type that is expected.

    Raises:
        MalformedBodyError: it is not JSON, or nested too deeply.
        InvalidInputError: a field is wrong; ``target`` is its path, with the names of entries.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        message, target = _readable(error, decoder.type)
        if _ENTRY not in target:
            raise _refused(message, target) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(bytes(body), error) from error

    # Only an entry of a map is at fault: it may be a feature in a form that callers may send.
    try:
        raw = _any.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(bytes(body), error) from error
    try:
        converted: T = msgspec.convert(_plain(raw, decoder.type, ""), decoder.type)
    except msgspec.ValidationError as error:
        raise _refused(*_readable(error, decoder.type)) from error
    return converted


def whole(request: RankRequest) -> RankRequest:
    """Return a request with its actions decoded, if they are as they were sent.

    Raises:
        InvalidInputError: an action is wrong; ``target`` is its path.
    """
    if type(request) is not BareRequest:
        return request
    sent = b'{"actions":%b}' % (request.sent or b"null")
    fields = list(msgspec.structs.astuple(request))
    fields[_ACTIONS_AT] = decode_body(sent, _actions).actions
    return RankRequest(*fields)


def whole_or_error(request: RankRequest) -> RankRequest | BanditloopError:
    """Return a request with its actions decoded, or what is wrong with them."""
    try:
        return whole(request)
    except BanditloopError as error:
        return error


class _Actions(msgspec.Struct, frozen=True):
    """What a request says of its actions."""

    actions: list[ActionRequest] | None = None


_actions = msgspec.json.Decoder(_Actions)


class RankDecoder:
    """Decodes the request for a decision, and leaves its actions as they are where that may do.

    It does where they are ids and nothing else.
    """

    type = RankRequest

    def __init__(self) -> None:
        self._bare = msgspec.json.Decoder(BareRequest)
        self._whole = msgspec.json.Decoder(RankRequest)

    def decode(self, body: bytes | msgspec.Raw, /) -> RankRequest:
        """Return what is asked.

        Raises:
            MsgspecError: it is wrong.
        """
        if _FEATURES in body or _ACTIONS not in body:
            return self._whole.decode(body)
        try:
            bare = self._bare.decode(body)
        except MALFORMED:
            bare = None  # what is wrong first is said of all of it
        if bare is None or not bare.sent.startswith(b"["):
            return self._whole.decode(body)
        return bare


class RawBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The items of a batch, each decoded by itself, so that one at fault refuses no other."""

    requests: list[msgspec.Raw]


class WholeBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The items of a batch, of which at most actions are at fault."""

    requests: list[BareRequest]


class BatchDecoder:
    """Decodes a batch as a whole, which is faster, or else as items to be decoded one by one."""

    type = RawBatch

    def __init__(self) -> None:
        self._whole = msgspec.json.Decoder(WholeBatch)
        self._raw = msgspec.json.Decoder(RawBatch)

    def decode(self, body: bytes | msgspec.Raw, /) -> WholeBatch | RawBatch:
        """Return the items of a batch.

        Raises:
            MsgspecError: this is no batch at all.
        """
        try:
            return self._whole.decode(body)
        except MALFORMED:
            return self._raw.decode(body)


class RawItems(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Items as they were sent."""

    items: list[msgspec.Raw]


class ManyItems:
    """The items of a body, of which many take long to decode.

    Args:
        sent: as they were sent.
        body: all of it.
        whole: decodes all of it.
    """

    def __init__(self, sent: RawItems, body: bytes | msgspec.Raw, whole: BodyDecoder[Any]) -> None:
        self._sent, self._body, self._whole = sent.items, body, whole

    def __len__(self) -> int:
        return len(self._sent)

    async def decoded(self) -> list[Item]:
        """Return them; other requests have their turns meanwhile.

        Raises:
            InvalidInputError: one is wrong; ``target`` is its path in the body.
        """
        items: list[Item] = []
        try:
            for at, sent in enumerate(self._sent):
                items.append(decode_body(sent, _item))
                if at % DECODED == DECODED - 1:
                    await asyncio.sleep(0)
        except InvalidInputError:
            # What is wrong is said of the body, in which it has its path.
            every: list[Item] = decode_body(self._body, self._whole).items
            return every
        return items


class ItemsDecoder:
    """Decodes a body of many items, all but the items themselves.

    Args:
        kind: its type, which has ``items`` and nothing else.
    """

    def __init__(self, kind: type[Any]) -> None:
        self.type = kind
        self._whole = msgspec.json.Decoder(kind)
        self._sent = msgspec.json.Decoder(RawItems)

    def decode(self, body: bytes | msgspec.Raw, /) -> ManyItems:
        """Return the items.

        Raises:
            MsgspecError: this is no body of items at all.
        """
        try:
            sent = self._sent.decode(body)
        except MALFORMED:
            self._whole.decode(body)  # says what is wrong
            raise
        return ManyItems(sent, body, self._whole)


def decode_query(raw: bytes, kind: type[T]) -> T:
    """Decode what is asked behind a path.

    Args:
        raw: as it was sent: ``name=value&…``.
        kind: the type that is expected.

    Raises:
        InvalidFieldError: a field is wrong, or not known; it names it.
    """
    fields = dict(parse_qsl(raw.decode(errors="replace"), keep_blank_values=True))
    try:
        parse_qsl(raw.decode(), errors="strict")
    except UnicodeDecodeError as error:
        unread = (name for name, value in fields.items() if "\ufffd" in name + value)
        raise InvalidFieldError(
            f"it is not UTF-8 ({error.reason}): quote the bytes of UTF-8, as of ä %C3%A4",
            next(unread, "query"),
        ) from error
    try:
        return msgspec.convert(fields, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidFieldError(*_readable(error, kind)) from error


def _readable(error: Exception, kind: Any = None) -> tuple[str, str]:
    """Return the message of an error, and its path.

    The path of an unknown or missing field ends in its own name.

    Args:
        error: of msgspec.
        kind: the type that was expected; where it is given, an unknown field is told of others.
    """
    message, _, where = str(error).partition(" - at `")
    target = where.rstrip("`").removeprefix("$")
    if field := _FIELD.search(message):
        known = sorted(_fields_at(kind, target)) if "unknown" in message else []
        meant = get_close_matches(field[1].lower(), known, 1, ALIKE)
        message += f": did you mean {meant[0]}?" if meant else ""
        message += f": there are {', '.join(known)}" if known and not meant else ""
        target += f".{field[1]}"
    if "datetime" in message:
        message = _TIME
    return message, target.removeprefix(".") or "body"


def _fields_at(kind: Any, path: str) -> set[str]:
    """Return the names of the fields that are known at a path.

    Args:
        kind: the type of the whole.
        path: as errors have it, such as ``.items[0]``.
    """
    here: list[Any] = [msgspec.inspect.type_info(kind)] if kind is not None else []
    for name, _ in [*_STEP.findall(path), ("", "")]:
        either = [each for info in _bare(here) for each in getattr(info, "types", [info])]
        every = _bare(either)
        structs = [each for each in every if isinstance(each, msgspec.inspect.StructType)]
        fields = {field.encode_name: field.type for each in structs for field in each.fields}
        items = [each.item_type for each in every if hasattr(each, "item_type")]
        here = [fields[name]] if name in fields else items
    return set(fields)


def _bare(infos: Iterable[Any]) -> list[Any]:
    """Return types without what is said of them besides."""
    return [getattr(each, "type", each) for each in infos]


def _refused(message: str, target: str) -> InvalidInputError:
    kind = NonFiniteNumberError if "out of range" in message else InvalidFieldError
    return kind(message, target)


def _malformed(body: bytes, error: Exception) -> InvalidInputError:
    if isinstance(error, RecursionError):
        return MalformedBodyError("the body is nested too deeply", "body")
    if "out of range" in str(error):
        try:
            target = infinite_in(json.loads(body))
        except (ValueError, RecursionError):
            target = None
        return NonFiniteNumberError("a number is too large", target or "body")
    if not body.strip():
        return MalformedBodyError("there is no body: send JSON", "body")
    reason = next((why for begins, why in _NO_JSON if body.startswith(begins)), str(error))
    if "truncated" in reason and _HALF.search(body):
        reason = "an escape such as \\ud83d needs the other half of its pair behind it"
    return MalformedBodyError(f"the body is not JSON: {reason}", "body")


def infinite_in(value: Any, target: str = "") -> str | None:
    """Return where the first number is that a float cannot hold; None: there is none.

    Args:
        value: what JSON says.
        target: its own path.
    """
    if isinstance(value, dict):
        inner = [(f"{target}.{name}".removeprefix("."), entry) for name, entry in value.items()]
    elif isinstance(value, list):
        inner = [(f"{target}[{at}]", item) for at, item in enumerate(value)]
    elif isinstance(value, int | float):
        return None if abs(value) <= sys.float_info.max else target
    else:
        return None
    return next((where for path, part in inner if (where := infinite_in(part, path))), None)


def _plain(value: Any, hint: Any, target: str) -> Any:
    """Return ``value``, which should be of the type ``hint``, with its features as in a record."""
    hint = _unwrapped(hint)
    if isinstance(value, dict) and get_origin(hint) in UNIONS:
        hint = next((kind for kind in get_args(hint) if _is_struct(kind)), hint)
    origin = get_origin(hint)

    # A field that the type does not have is left as it is: the conversion names it.
    if isinstance(value, dict) and _is_struct(hint):
        fields = _fields(hint)
        return {
            name: _plain(field, fields[name], f"{target}.{name}".removeprefix("."))
            if name in fields
            else field
            for name, field in value.items()
        }
    if isinstance(value, dict) and hint == FeatureMap:
        return plain_features(value, target)
    if isinstance(value, dict) and hint == FeaturesPatch:
        return plain_patch(value, target)
    if isinstance(value, dict) and origin is dict:
        return _entries(value, get_args(hint)[1], target)
    if isinstance(value, list) and origin is list:
        kind = get_args(hint)[0]
        return [_plain(item, kind, f"{target}[{at}]") for at, item in enumerate(value)]
    return value


def _entries(value: dict[str, Any], hint: Any, target: str) -> dict[str, Any]:
    """Return the entries of a map of one type; a number that is null is left out."""
    kept = {name: entry for name, entry in value.items() if not (entry is None and hint is float)}
    for name, entry in kept.items():
        try:
            msgspec.convert(entry, hint)
        except msgspec.ValidationError as error:
            raise _refused(_readable(error)[0], f"{target}.{name}") from error
    return kept


def _unwrapped(hint: Any) -> Any:
    """Return a type without what Annotated adds, and without what says that there is none."""
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in UNIONS:
        kinds = [kind for kind in get_args(hint) if kind not in {types.NoneType, UnsetType}]
        if len(kinds) == 1:
            return _unwrapped(kinds[0])
    return hint


def _is_struct(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


@cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)
