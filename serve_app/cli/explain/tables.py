"""Explanations for a person: a table of actions, and the terms of those that were chosen."""

from collections.abc import Sequence

from rich.text import Text

from banditloop_client.explain_schemas import ExplainedAction, Explanation
from serve_app.cli.terminal import empty_table, output, say

HEADS = ("action", "chosen in slot", "probability in slot 0", "score", "boost", "sources")
NUMBERS = ("value", "weight", "adds")
SHOWN = 12
"""Terms of an action that the terminal shows; --json has all."""


def print_explanation(explanation: Explanation) -> None:
    """Print why a decision is as it is."""
    if explanation.note is not None:
        say(explanation.note, on=output)

    actions = explanation.actions
    table = empty_table(*HEADS, numbers=HEADS[1:5])
    for each in actions:
        said = ", ".join(f"{name} {of.score:.3g} (#{of.rank})" for name, of in each.sources.items())
        table.add_row(*map(Text, _cells(each)), Text(said))
    output.print(table)
    for each in actions:
        if each.slot is not None and each.terms:
            _print_terms(each)


def _cells(action: ExplainedAction) -> Sequence[str]:
    return (
        action.id,
        "" if action.slot is None else str(action.slot),
        f"{action.probability:.4f}",
        "" if action.score is None else f"{action.score:.4f}",
        f"{action.boost:+.4f}" if action.boost else "",
    )


def _print_terms(action: ExplainedAction) -> None:
    table = empty_table(f"why {action.id}", *NUMBERS, numbers=NUMBERS)
    for term in action.terms[:SHOWN]:
        name = " x ".join(term.features) or "constant"
        numbers = (f"{term.value:.4g}", f"{term.weight:+.4g}", f"{term.adds:+.4f}")
        table.add_row(Text(name), *numbers)
    rest = action.terms[SHOWN:]
    if rest:
        table.add_row(f"{len(rest)} more", "", "", f"{sum(each.adds for each in rest):+.4f}")
    output.print(table)
