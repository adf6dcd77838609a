"""VW's command line beyond a model: what is left out here, and what is another problem."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bandits.errors import SpecError

# VW's own output, its diagnostics and where it reads from: a replay has a report and a log.
_LEFT_OUT: Mapping[str, bool] = {  # by name, whether a value follows
    **dict.fromkeys(
        (
            "audit",
            "quiet",
            "kill_cache",
            "compressed",
            "no_stdin",
            "onethread",
            "save_resume",
            "dsjson",
            "driver_output_off",
            "hexfloat_weights",
            "predict_only_model",
            "no_daemon",
            "foreground",
            "dry_run",
        ),
        False,
    ),
    **dict.fromkeys(
        (
            "predictions",
            "raw_predictions",
            "final_regressor",
            "progress",
            "extra_metrics",
            "data",
            "readable_model",
            "invert_hash",
            "driver_output",
            "log_level",
            "log_output",
            "limit_output",
            "dump_json_weights_experimental",
        ),
        True,
    ),
}
_SHORT = {
    "a": "audit",
    "d": "data",
    "f": "final_regressor",
    "i": "initial_regressor",
    "k": "kill_cache",
    "p": "predictions",
    "P": "progress",
    "r": "raw_predictions",
    "t": "testonly",
}

_ADF = "use --cb_explore_adf"
OTHER_PROBLEMS: Mapping[str, str] = {
    "ccb_explore_adf": f"decides several slots at once (CCB), and a decision here has one: {_ADF}",
    "slates": f"gives several slots one reward (slates), and a decision here has one slot: {_ADF}",
    "cb_adf": f"chooses without exploring, so there is no PMF: {_ADF}, with --epsilon 0 for the"
    " best action alone",
    "large_action_space": "keeps what it met in earlier decisions, so a PMF cannot be derived"
    " again: leave it out",
    "cb": f"has a fixed number of actions without features: {_ADF}",
    "cb_explore": f"has a fixed number of actions without features: {_ADF}",
    "cb_sample": "draws the action itself, and a PMF is wanted: leave it out",
    "cbify": f"makes a bandit of classes, and a log has decisions already: {_ADF}",
    "cats": f"chooses a number (CATS), and an action here is one of a list: {_ADF}",
    "cats_pdf": f"chooses a number (CATS), and an action here is one of a list: {_ADF}",
    "passes": "reads a log several times, and here it is read once, in its order: leave it out",
    "json": "is a format that holds no decisions: give dsjson or text",
}
"""Options for what is done nowhere here, and why."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command line of VW.

    ``args``: what makes the model. ``left_out``: words that change no prediction. ``model``: the
    file that it starts from (``-i``). ``learns``: false with ``-t``.
    """

    args: str
    left_out: Sequence[str] = ()
    model: Path | None = None
    learns: bool = True

    @property
    def notes(self) -> Sequence[str]:
        """The notes of a report on the command line."""
        if not self.left_out:
            return ()
        words = " ".join(self.left_out)
        return (f"left out: {words} (a replay has input, output and diagnostics of its own)",)


def read_command(args: str, model: str | Path | None = None) -> Command:
    """Take apart what somebody gives to VW.

    Args:
        args: the words of a command line.
        model: the file to start from, if it is given apart.

    Raises:
        SpecError: an option without its value, or several models.
    """
    words, learns = args.split(), True
    kept: list[str] = []
    left_out: list[str] = []
    models = [] if model is None else [str(model)]

    # What makes the model is kept, in its order; the rest has a place of its own, or none.
    while words:
        word = words.pop(0)
        name, value = _option(word)
        if name == "testonly":
            learns = False
        elif name == "initial_regressor":
            models.append(value or _next(words, word))
        elif name in _LEFT_OUT:
            left_out.append(word)
            if _LEFT_OUT[name] and not value:
                left_out.append(_next(words, word))
        else:
            kept.append(word)

    if len(models) > 1:
        raise SpecError("a model goes on from one file: give -i, or model, once", "learner.args")
    return Command(" ".join(kept), left_out, Path(models[0]) if models else None, learns)


def names_a_file(word: str) -> bool:
    """Return whether a word that is left out is an option whose value says where, or how much."""
    return _LEFT_OUT.get(_option(word)[0], False)


def _option(word: str) -> tuple[str, str]:
    """Return an option's long name and the value written onto it; "" of another word."""
    if word.startswith("--"):
        name, _, value = word[2:].partition("=")
        return name, value
    if word[:1] == "-" and word[1:2] in _SHORT:
        return _SHORT[word[1]], word[2:]
    return "", ""


def _next(words: list[str], option: str) -> str:
    if not words:
        raise SpecError(f"{option} needs a value", "learner.args")
    return words.pop(0)
