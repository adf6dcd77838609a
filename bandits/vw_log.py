"""Vowpal Wabbit reading its own log: it predicts, then learns, example by example, as its command line does."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from vowpal_wabbit_next import LabelType, PredictionType, Workspace, _core

from bandits.errors import BadRowError, SnapshotError, SpecError
from bandits.scoring import Arity, read_arguments
from bandits.vw import KNOWN

LogFormat = Literal["dsjson", "text"]

# What was found to give the command line's average loss. Not among KNOWN, because a learner of hashed features, or one
# that has to resume, could not follow.
READABLE: Mapping[str, Arity] = {
    **KNOWN,
    **dict.fromkeys(("sparse_weights", "dropout", "stage_poly"), "flag"),
    **dict.fromkeys(("hash_seed", "affix", "min_prediction", "max_prediction", "marginal"), "value"),
    **dict.fromkeys(("redefine", "spelling"), "list"),
}


class VwLogReader:
    """A VW model as it reads a log. Not thread-safe.

    It asks the library's core: an object of Python for each line, checked each time, is half of a replay's time.

    ``args``: a ``--cb_explore_adf`` argument string of ``READABLE`` options. ``model``: bytes of a model that VW has
    saved, to go on from; its own options are in it, and need not be repeated.

    Raises:
        SpecError: arguments that are not allowed, or that VW refuses; the message says why.
        SnapshotError: VW cannot load the model with these arguments.
    """

    def __init__(self, args: str, log_format: LogFormat, *, model: bytes | None = None) -> None:
        options = read_arguments(args, READABLE)
        if "preserve_performance_counters" in options:
            raise SpecError("--preserve_performance_counters would count what the model read before", "learner.args")
        if model is None and "cb_explore_adf" not in options:
            raise SpecError("a VW learner's arguments include --cb_explore_adf", "learner.args")
        try:
            workspace: Workspace[bool] = Workspace([*args.split(), "--quiet"], model_data=model)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            if model is None:
                raise SpecError(f"VW refuses '{args}': {reason}", "learner.args") from error
            raise SnapshotError(f"VW cannot load the model: {reason}", "model") from error
        kind = workspace.multiline, workspace.label_type, workspace.prediction_type
        if kind != (True, LabelType.CB, PredictionType.ActionProbs):
            raise SpecError("the model does not make a PMF over actions", "learner.args")
        self._workspace: Any = workspace._workspace  # noqa: SLF001
        self._format = log_format

    def predict_then_learn(self, lines: Sequence[bytes], chosen: int | None) -> float:
        """Let VW parse one example: the probability of its chosen action, before it learns from it; 0 without one.

        ``lines``: UTF-8; of text all of the example, of dsjson its one line. ``chosen``: index of the action with the
        label, None without one. An example whose label VW sees elsewhere is refused first: it would end in an error
        halfway through.

        Raises:
            BadRowError: VW refuses the example, or sees its label elsewhere. Does not say where it stands.
        """
        try:
            examples = self._parse(lines)
            self._check_label(lines, examples, chosen)
            predicted = self._workspace.predict_then_learn_multi_ex_one(examples)
        except (RuntimeError, UnicodeDecodeError) as error:
            raise BadRowError(f"VW cannot read it: {' '.join(str(error).split())}", "line") from error
        for action, probability in predicted:
            if action == chosen:
                return float(probability)
        return 0.0

    def _parse(self, lines: Sequence[bytes]) -> list[Any]:
        if self._format == "dsjson":
            return list(_core._parse_line_dsjson(self._workspace, lines[0].decode()))  # noqa: SLF001
        parse, workspace = _core._parse_line_text, self._workspace  # noqa: SLF001
        b"".join(lines).decode()
        return [parse(workspace, line) for line in lines]  # type: ignore[arg-type] # bytes do as well

    def _check_label(self, lines: Sequence[bytes], examples: list[Any], chosen: int | None) -> None:
        if chosen is None:
            return
        if self._format == "text":
            place = chosen + lines[0].startswith(b"shared")
        else:
            place = chosen + examples[0]._get_label(LabelType.CB).shared  # noqa: SLF001
        if not place < len(examples) or examples[place]._get_label(LabelType.CB).label is None:  # noqa: SLF001
            raise BadRowError("VW does not see the label there: of dsjson, it must come before the features", "label")
