"""What is sent to Redis at once for all who ask at a time, and what of its answers is whose."""

import asyncio
from collections.abc import Sequence
from itertools import islice
from typing import Any

import msgspec

FEW, FEW_BYTES = 8, 12_000
"""So many entries, of so many bytes, are a command each: a script costs more.

What is longer the server may read in two parts, and sync twice.
"""
Command = tuple[Any, ...]


class Posted(msgspec.Struct, frozen=True, eq=False):
    """``count`` entries to append, or commands that only read.

    ``head``: what the command begins with that all who append alike share, each with its ``data``;
    without any, it is a command of this one's own. Without a head, ``data`` are commands that read.
    ``alone``: what a command begins with that appends one entry alone, whose bytes are its data.
    """

    head: tuple[Any, ...]
    data: Sequence[Any]
    count: int
    done: "asyncio.Future[Any]"
    due: float
    alone: Command = ()


def _are_few(sharing: Sequence[Posted]) -> bool:
    """Return whether those who append alike have a command each: what is one's stays one step."""
    if len(sharing) == 1:
        (only,) = sharing
        return bool(only.alone) and only.count == 1 and sum(map(len, only.data)) <= FEW_BYTES
    if len(sharing) > FEW or not all(asked.alone and asked.count == 1 for asked in sharing):
        return False
    return sum(len(data) for asked in sharing for data in asked.data) <= FEW_BYTES


class WireMessage:
    """What goes out at once: one command for all that append alike, one for each that has its own.

    What several read alike is asked for once. The ``writes`` stand first.
    """

    def __init__(self, batch: Sequence[Posted]) -> None:
        self._batch = batch
        self._alone: list[Posted] = []
        self._by_head: dict[Command, list[Posted]] = {}
        self._reads: dict[Command, int] = {}
        for asked in batch:
            if not asked.head:
                for command in asked.data:
                    self._reads.setdefault(command, len(self._reads))
            elif asked.data:
                self._by_head.setdefault(asked.head, []).append(asked)
            else:
                self._alone.append(asked)
        few = [head for head, sharing in self._by_head.items() if _are_few(sharing)]
        self._singly = [asked for head in few for asked in self._by_head.pop(head)]
        self.writes = len(self._alone) + len(self._singly) + len(self._by_head)

    @property
    def commands(self) -> list[Command]:
        """The commands."""
        commands = [asked.head for asked in self._alone]
        commands += [(*asked.alone, *asked.data) for asked in self._singly]
        for head, sharing in self._by_head.items():
            commands.append((*head, *[data for asked in sharing for data in asked.data]))
        return [*commands, *self._reads]

    def results(self, written: Sequence[Any], read: Sequence[Any]) -> list[Any]:
        """Return the result of each that was asked, or its error.

        Args:
            written: the answers to the writes.
            read: those to the reads.
        """
        result_of = dict(zip(map(id, self._alone), written, strict=False))
        answers = written[len(self._alone) :]
        for asked, answer in zip(self._singly, answers, strict=False):
            result_of[id(asked)] = answer if isinstance(answer, Exception) else [answer]
        # One answer holds the ids of all entries, in the order of those who append alike.
        answers = answers[len(self._singly) :]
        for sharing, answer in zip(self._by_head.values(), answers, strict=True):
            entries = iter(() if isinstance(answer, Exception) else answer)
            for asked in sharing:
                own = list(islice(entries, asked.count))
                result_of[id(asked)] = answer if isinstance(answer, Exception) else own
        if self._reads:
            for asked in self._batch:
                if not asked.head:
                    found = [read[self._reads[command]] for command in asked.data]
                    wrong = (each for each in found if isinstance(each, Exception))
                    result_of[id(asked)] = next(wrong, found)
        return [result_of[id(asked)] for asked in self._batch]


class LoneMessage:
    """What goes out where one entry alone is appended, and nothing read: the same in fewer steps.

    Attributes:
        commands: the one that goes out.
        writes: how many of them write.
    """

    writes = 1

    def __init__(self, asked: Posted) -> None:
        self.commands: list[Command] = [(*asked.alone, *asked.data)]

    def results(self, written: Sequence[Any], _read: Sequence[Any]) -> list[Any]:
        """Return the result of the one that was asked, or its error."""
        answer = written[0]
        return [answer if isinstance(answer, Exception) else [answer]]


def message_of(batch: Sequence[Posted]) -> WireMessage | LoneMessage:
    """Return the message of all who ask; there is at least one."""
    if len(batch) == 1 and batch[0].alone and _are_few(batch):
        return LoneMessage(batch[0])
    return WireMessage(batch)
