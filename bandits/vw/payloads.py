"""The payloads of Vowpal Wabbit's snapshots and checkpoints, as bytes."""

import hashlib
from typing import TypeVar

import msgspec

from bandits.errors import SnapshotError
from bandits.log.codec import MALFORMED


class VwWeightsPayload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The weights that are not 0: little-endian uint32 indices, increasing, and float32 values."""

    args: str
    indices: bytes
    values: bytes


class VwModelPayload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model as VW serialises it.

    ``digest``: of the other fields, since VW may accept, or crash on, what is not a model.
    ``available``: how many actions there were to choose from, over all that was learned by row; 0
    where VW was shown all actions, and has counted them itself.
    """

    args: str
    learned: int
    model: bytes
    digest: bytes
    available: int = 0


_Payload = TypeVar("_Payload", VwWeightsPayload, VwModelPayload)


def _digest(args: str, learned: int, available: int, model: bytes) -> bytes:
    return hashlib.blake2b(
        f"{args}\n{learned}\n{available}\n".encode() + model, digest_size=16
    ).digest()


def decode_payload(payload: bytes, kind: type[_Payload]) -> _Payload:
    """Return the payload of a snapshot.

    Args:
        payload: its bytes.
        kind: what they hold.

    Raises:
        SnapshotError: it is none.
    """
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except MALFORMED as error:
        raise SnapshotError(f"not a VW payload: {error}", "payload") from error


def decode_model(payload: bytes) -> VwModelPayload:
    """Return the model in a checkpoint.

    Raises:
        SnapshotError: it is none, or not what was written.
    """
    decoded = decode_payload(payload, VwModelPayload)
    if _digest(decoded.args, decoded.learned, decoded.available, decoded.model) != decoded.digest:
        raise SnapshotError("the VW model is not what was written", "payload.digest")
    return decoded


def encode_model(args: str, learned: int, available: int, model: bytes) -> bytes:
    """Return a checkpoint.

    Args:
        args: the learner's arguments.
        learned: how many interactions the model has learned.
        available: see ``VwModelPayload``.
        model: the bytes that VW has serialised.
    """
    args = " ".join(args.split())
    digest = _digest(args, learned, available, model)
    return msgspec.msgpack.encode(VwModelPayload(args, learned, model, digest, available))
