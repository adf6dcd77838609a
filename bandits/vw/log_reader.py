"""Vowpal Wabbit reading its own log: it predicts, then learns, as its command line does."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from vowpal_wabbit_next import CBLabel, LabelType, PredictionType, Workspace, _core

from bandits.errors import BadRowError, ReplayError, SnapshotError, SpecError
from bandits.types import Pmf, frozen
from bandits.vw.accepted_arguments import KNOWN
from bandits.vw.arguments import Arity, read_arguments

LogFormat = Literal["dsjson", "text"]

# Lines at which VW's text parser stops with an error. It then gives the half-read example back to
# its pool as it is, and whatever line is read into that one loses features, in every workspace of
# the process; so VW never gets to see such a line. Found by trial (test_log_reader.py). VW takes a
# value that does not begin as a number for a text; it would read on over a colon with nothing
# behind it, and it takes infinity: both are refused as well.
_NUMBER = rb"[+-]?(?:0[xX][0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
_END, _LAST = rb"[ \t\r|]", rb"(?:[ \t]|\Z)"
_UNREADABLE = re.compile(
    rb"\|:"
    rb"|\|[^ \t|:]++:(?!" + _NUMBER + _END + rb")"
    rb"|[ \t][^ \t|:]*+:(?:(?![^ \t\r|])|(?!"
    + _NUMBER
    + rb"(?:"
    + _END
    + rb"|\Z)|[+-]?[0-9.]+[eE]-?"
    + _LAST
    + rb")"
    rb"[+-]?(?i:nan|inf|\.?[0-9]))"
)
# For most lines it is enough to look at the colons: neither of these is found in them.
_WEIGHTED = re.compile(rb"\|[^ \t|:]*+:")
_SUSPECT = re.compile(rb":(?!" + _NUMBER + rb"(?:[ \t\r\n|]|\Z)|[^ \t\r\n|:0-9.+\-iInN])")

# What was found to give the command line's average loss. Not among KNOWN, because a learner of
# hashed features, or one that has to resume, could not follow.
READABLE: Mapping[str, Arity] = {
    **KNOWN,
    **dict.fromkeys(("sparse_weights", "dropout", "stage_poly"), "flag"),
    **dict.fromkeys(
        ("hash_seed", "affix", "min_prediction", "max_prediction", "marginal"), "value"
    ),
    **dict.fromkeys(("redefine", "spelling"), "list"),
}
_NO_COST = float(np.finfo(np.float32).max)
"""How VW marks a cost that was not given."""
_CONSTANT_SPACE = 128
"""The namespace of the constant."""
_SLACK, _TINY = 1e-4, 1e-30  # VW reads numbers its own way, quickly, into 32 bits


class VwLabel(msgspec.Struct, frozen=True, gc=False):
    """The label of a line: the choice and its cost.

    ``chosen``: the index of the action; None if there is no label. ``weight``: how many decisions
    the line stands for.
    """

    chosen: int | None
    cost: float = 0.0
    probability: float = 1.0
    weight: float = 1.0


class VwLogReader:
    """A VW model as it reads a log. Not thread-safe.

    It asks the library's core, since making and checking an object of Python for each line takes
    half of a replay's time.

    Args:
        args: a ``--cb_explore_adf`` argument string of ``READABLE`` options.
        log_format: the format of the log's lines.
        model: a model that VW has saved, to go on from; its own options need not be repeated.
        learns: it learns from what it reads; without, it only predicts, as with VW's ``-t``.

    Raises:
        SpecError: arguments that are not allowed, or that VW refuses; the message says why.
        SnapshotError: VW cannot load the model with these arguments.
    """

    def __init__(
        self, args: str, log_format: LogFormat, *, model: bytes | None = None, learns: bool = True
    ) -> None:
        options = read_arguments(args, READABLE)
        if "preserve_performance_counters" in options:
            raise SpecError(
                "--preserve_performance_counters would count what the model read before",
                "learner.args",
            )
        if model is None and "cb_explore_adf" not in options:
            raise SpecError("a VW learner's arguments include --cb_explore_adf", "learner.args")

        try:
            workspace: Workspace[bool] = Workspace([*args.split(), "--quiet"], model_data=model)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            if model is None:
                raise SpecError(f"VW refuses '{args}': {reason}", "learner.args") from error
            raise SnapshotError(f"VW cannot load the model: {reason}", "model") from error

        # The options may be in the model: what it does is asked of the workspace.
        kind = workspace.multiline, workspace.label_type, workspace.prediction_type
        if kind != (True, LabelType.CB, PredictionType.ActionProbs):
            label, prediction = workspace.label_type.name, workspace.prediction_type.name
            raise SpecError(
                f"the model was not made with --cb_explore_adf: its label is {label}, its"
                f" prediction {prediction}, not a PMF",
                "learner.args",
            )

        self._workspace: Any = workspace._workspace  # noqa: SLF001
        self._format = log_format
        self._learns, self._last = learns, list[Any]()
        self._ask = (
            self._workspace.predict_then_learn_multi_ex_one
            if learns
            else self._workspace.predict_multi_ex_one
        )

    def probability(self, lines: Sequence[bytes], label: VwLabel) -> float:
        """Return the chosen action's probability before VW learns from it; 0 without one.

        Where VW reads another label than ``label``, or none, the example is refused before anything
        is learned from it.

        Args:
            lines: the example in UTF-8: all lines of a text, the one line of dsjson.
            label: its label, as it was read elsewhere.

        Raises:
            BadRowError: VW refuses the example, or reads another label. It does not say where the
                example stands.
        """
        for action, probability in self._asked(lines, label, self._ask):
            if action == label.chosen:
                return float(probability)
        return 0.0

    def pmf(self, lines: Sequence[bytes], label: VwLabel) -> Pmf:
        """Return VW's probabilities of all actions, float64[K], before it learns from the example.

        Args:
            lines: the example in UTF-8: all lines of a text, the one line of dsjson.
            label: its label, as it was read elsewhere.

        Raises:
            BadRowError: VW refuses the example, or reads another label; nothing is learned from it.
            ReplayError: VW stops in the middle of a text, and would read later lines wrong.
        """
        return _pmf_of(self._asked(lines, label, self._ask))

    def predict(self, lines: Sequence[bytes], label: VwLabel) -> Pmf:
        """Return VW's probabilities of all actions, float64[K], without learning.

        ``learn`` may follow.

        Args:
            lines: the example in UTF-8: all lines of a text, the one line of dsjson.
            label: its label, as it was read elsewhere.

        Raises:
            BadRowError: VW refuses the example, or reads another label.
            ReplayError: VW stops in the middle of a text, and would read later lines wrong.
        """
        return _pmf_of(self._asked(lines, label, self._workspace.predict_multi_ex_one))

    def features(self, lines: Sequence[bytes]) -> list[list[tuple[int, int]]]:
        """Return the features of each example: the first byte of its namespace, and its index.

        The constant that Vowpal Wabbit adds is left out.

        Args:
            lines: the examples in UTF-8, as for ``pmf``.

        Raises:
            BadRowError: VW cannot read them.
        """
        try:
            examples = self._parse(lines)
        except (RuntimeError, UnicodeDecodeError) as error:
            raise BadRowError("VW cannot read it", "line") from error
        return [
            [
                (letter, int(index))
                for letter in example._feat_group_indices  # noqa: SLF001
                if letter != _CONSTANT_SPACE
                for index in example[letter].indices
            ]
            for example in examples
        ]

    def learn(self, label: VwLabel, probability: float) -> None:
        """Learn from the example that was predicted last; nothing with -t.

        Args:
            label: the same as was given with it, with a chosen action.
            probability: that with which the action counts as chosen.
        """
        if self._learns:
            examples = self._last
            shared = examples[0]._get_label(LabelType.CB).shared  # noqa: SLF001
            chosen = examples[(label.chosen or 0) + shared]
            chosen._set_label(CBLabel(label=(0, label.cost, probability)))  # noqa: SLF001
            self._workspace.learn_multi_ex_one(examples)

    def _asked(
        self,
        lines: Sequence[bytes],
        label: VwLabel,
        ask: Callable[[list[Any]], Sequence[tuple[int, float]]],
    ) -> Sequence[tuple[int, float]]:
        """Parse an example, compare its label, and ask the model."""
        try:
            examples = self._last = self._parse(lines)
            self._check_label(examples, label)
            return ask(examples)
        except (RuntimeError, UnicodeDecodeError) as error:
            raise BadRowError(
                f"VW cannot read it: {' '.join(str(error).split())}", "line"
            ) from error

    def _parse(self, lines: Sequence[bytes]) -> list[Any]:
        """Return the examples of VW that it parses, of lines that cannot end in the middle."""
        if self._format == "dsjson":
            line = lines[0].decode()
            if not line.isascii() or "\\u" in line:
                _check_namespaces(msgspec.json.decode(line))
            return list(_core._parse_line_dsjson(self._workspace, line))  # noqa: SLF001

        parse, workspace = _core._parse_line_text, self._workspace  # noqa: SLF001
        block = b"\n".join(lines)
        block.decode()
        checked = lines if _is_plain(block) else [_checked(line) for line in lines]

        try:
            # The library says text, and takes bytes as well.
            return [parse(workspace, line) for line in checked]  # type: ignore[arg-type]
        except RuntimeError as error:
            raise ReplayError(
                f"VW stops in the middle of {lines!r} ({' '.join(str(error).split())}) and would"
                " read later lines wrong: take that example out of the log",
                "log",
            ) from error

    def _check_label(self, examples: list[Any], label: VwLabel) -> None:
        """Demand that VW has read the same label."""
        shared = examples[0]._get_label(LabelType.CB).shared  # noqa: SLF001
        if label.chosen is None:
            if any(_observed(example) is not None for example in examples):
                raise BadRowError("VW sees a label where this reader sees none", "label")
            return

        place = label.chosen + shared
        observed = _observed(examples[place]) if place < len(examples) else None
        if observed is None:
            raise BadRowError(
                "VW does not see the label there: in dsjson it has to come before the features",
                "label",
            )

        # VW reads numbers in its own, quicker way.
        cost, probability = observed
        if (
            abs(cost - label.cost) > _SLACK * abs(label.cost) + _TINY
            or abs(probability - label.probability) > _SLACK * label.probability
        ):
            raise BadRowError(
                f"VW reads cost and probability as {cost} and {probability}, not as {label.cost}"
                f" and {label.probability}",
                "label",
            )


def _pmf_of(predicted: Sequence[tuple[int, float]]) -> Pmf:
    pmf = np.zeros(len(predicted), np.float64)
    for action, probability in predicted:
        pmf[action] = probability
    return frozen(pmf / pmf.sum())


def _is_plain(block: bytes) -> bool:
    """Return whether nothing in these lines has to be looked at more closely; a label has not."""
    if _WEIGHTED.search(block):
        return False

    # A colon before the first bar of its line is a label's.
    at = 0
    while suspect := _SUSPECT.search(block, at):
        begin, end = suspect.span()
        start, bar = block.rfind(b"\n", 0, begin) + 1, block.find(b"|", end)
        if b"|" in block[start:begin] or bar < 0 or b"\n" in block[end:bar]:
            return False
        at = bar
    return True


def _checked(line: bytes) -> bytes:
    """Return the line as VW reads it all: a weight at its end needs a space behind it.

    Raises:
        BadRowError: VW would only read half of it.
    """
    bar = line.find(b"|")
    if bar < 0:
        return line
    last = line.rpartition(b"|")[2]
    if b":" in last and b" " not in last:
        line += b" "
    wrong = _UNREADABLE.search(line, bar)
    if wrong is not None:
        word = re.split(rb"[ \t|]", line[wrong.start() + 1 :])[0].decode()
        raise BadRowError(
            f"VW cannot read it: a feature is name or name:value, not {word!r}", "line"
        )
    return line


def _check_namespaces(tree: Any) -> None:
    """Refuse namespaces whose names begin with another character than ASCII."""
    for name, value in tree.items() if isinstance(tree, dict) else ():
        if isinstance(value, dict | list):
            if name[:1] > "\x7f":
                raise BadRowError(
                    f"a namespace's name begins with an ASCII character here, not as {name!r} does",
                    name,
                )
            _check_namespaces(value)
    for value in tree if isinstance(tree, list) else ():
        _check_namespaces(value)


def _observed(example: Any) -> tuple[float, float] | None:
    """Return a label's cost and probability, float32; None if VW does not learn from it."""
    label = example._get_label(LabelType.CB).label  # noqa: SLF001
    if label is None or label[1] == _NO_COST or label[2] <= 0.0:
        return None
    return label[1], label[2]
