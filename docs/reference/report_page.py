"""The page of a policy's report, from its structs and the tables of its verdicts."""

from collections.abc import Mapping

from describe import heading_of, inner_structs, struct, table

from simulator.doctor.checks.findings import Finding
from simulator.report.report import PolicyReport
from simulator.report.shadows.verdicts import SHADOW_VERDICTS
from simulator.report.verdicts import CAUTIONS, VERDICTS, VerdictKind


def policy_report() -> str:
    """Return the page of what ``banditloop report`` says."""
    parts = [
        "# Report of a policy",
        (
            "[Say what a policy is worth](../how-to/report.md) says how to read a report. It ends"
            " in one verdict, and has any number of cautions."
        ),
        "## Verdicts",
        "The first of them that holds, from above.",
        _cases(VERDICTS),
        "## Cautions",
        _cases(CAUTIONS),
        "## Verdicts on shadows",
        ("Of each [shadow](../how-to/try-a-policy-in-shadow.md) the first that holds, from above."),
        _cases(SHADOW_VERDICTS),
        "## Fields",
        (
            "`--json` and `--out` have these fields. A number that is not known, or infinite, is"
            " `null`."
        ),
    ]

    parts += struct(PolicyReport, heading_of(PolicyReport), level=3)
    inner = [each for each in dict.fromkeys(inner_structs(PolicyReport)) if each is not Finding]
    for each in inner:
        inner += [part for part in inner_structs(each) if part not in inner]
        parts += struct(each, heading_of(each), level=3)
    parts += struct(Finding, heading_of(Finding), level=3)
    return "\n\n".join(parts)


def _cases(kinds: Mapping[str, VerdictKind]) -> str:
    rows = [(f"`{code}`", kind.when, kind.action) for code, kind in kinds.items()]
    return table(("code", "when", "what to do"), rows)
