"""``banditloop train --search``: what sources are fitted with, and what is told of the search."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.table import Table
from rich.text import Text

from bandits.errors import ArtifactError, BanditloopError, InvalidFieldError
from policies.typed_yaml import as_type, encode_yaml, parse_yaml
from serve_app.cli.terminal import empty_table, output, progress_bar, ray_kept_quiet, say

if TYPE_CHECKING:
    from bandits.values import FeatureMap
    from policies.artifacts.source_artifact import Artifact
    from policies.data.coded import CodedEvents
    from policies.data.manifest import WeightOptions
    from policies.training.fits import TrainConfig
    from simulator.ranking.report import Metric
    from simulator.tuning.report import TuningReport
    from simulator.tuning.search import SearchBudget

REPORT, PAGE, FIT = "search.json", "search.html", "fit.yaml"
"""The names of the files that tell of a search, in the folder of an artifact's versions."""


def read_fit(path: Path) -> "TrainConfig":
    """Return what a file says that sources are fitted with; the rest is as usual.

    Raises:
        ArtifactError: it cannot be read, or names what there is not.
    """
    from policies.artifacts.fitted_with import with_changes
    from policies.training.fits import TrainConfig

    try:
        changes = as_type(parse_yaml(path.read_bytes()) or {}, dict[str, dict[str, Any]])
        return with_changes(TrainConfig(), changes)
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror}", "fit") from error
    except InvalidFieldError as error:
        where = f"{error.target}: " if error.target else ""
        raise ArtifactError(f"{path}: {where}{error.message}", error.target or "fit") from error
    except BanditloopError as error:
        raise ArtifactError(f"{path}: {error.message}", error.target or "fit") from error


def searched(
    name: str,
    events: "CodedEvents",
    items: Sequence[Mapping[str, Any]],
    weights: "WeightOptions",
    budget: "SearchBudget",
    *,
    sources: Sequence[str] | None,
    config: "TrainConfig | None",
    contexts: "Mapping[str, FeatureMap]",
    seed: int,
    address: str | None,
) -> "tuple[TrainConfig, TuningReport]":
    """Search with a bar; return what sources are fitted with, and the report.

    Args:
        name: of the data set.
        events: all of them.
        items: the catalogue.
        weights: what events are worth.
        budget: how long to search.
        sources: which; the usual ones by default.
        config: what they are fitted with when nobody searches.
        contexts: by user, what a caller will say of each with a request.
        seed: of all random numbers.
        address: of the Ray cluster; None for one of this machine's own.
    """
    from simulator.tuning.search import search_sources

    cluster = address or "local"
    with ray_kept_quiet(cluster), progress_bar() as bars:
        task = bars.add_task("search", total=None)

        def show(what: str, done: int, total: int) -> None:
            bars.update(task, description=f"search: {what}", completed=done, total=total)

        config, report = search_sources(
            name,
            events,
            items,
            weights,
            budget,
            sources=sources,
            config=config,
            contexts=contexts,
            seed=seed,
            address=cluster,
            progress=show,
        )
    for part in search_tables(report):
        output.print(part, soft_wrap=isinstance(part, Text))
    return config, report


def write_search(report: "TuningReport", folder: Path, artifact: "Artifact", version: str) -> None:
    """Write a search's report beside the artifact that was trained by it.

    Args:
        report: of the search.
        folder: of the artifact's versions.
        artifact: what was trained.
        version: its version.
    """
    from policies.artifacts.fitted_with import changes_told
    from simulator.tuning.page import search_page

    whole = msgspec.structs.replace(report, artifact=version)
    (folder / REPORT).write_bytes(msgspec.json.format(msgspec.json.encode(whole)))
    (folder / PAGE).write_text(search_page(whole), encoding="utf-8")
    (folder / FIT).write_bytes(encode_yaml(changes_told(artifact)))
    say(f"what was found in {folder / FIT}, which --fit takes")
    say(f"every trial of the search in {folder / REPORT} and {folder / PAGE}")


def search_tables(report: "TuningReport") -> list[Table | Text]:
    """Return what became of each source, as tables."""
    from simulator.tuning.report import describe_values, search_facts

    heads = ["trials", "unchanged", "best", "test", "gain", "from", "to"]
    table = empty_table(
        "source",
        *heads,
        title="Search: nDCG@10",
        numbers=heads,
        whole=["source"],
        caption="unchanged, best: on the selecting part; test: of the best on the test part; gain:"
        " over the unchanged there, and its 95% interval",
    )
    for choice in report.choices:
        made = {trial.trial for trial in report.trials if trial.source == choice.source}
        table.add_row(
            choice.source,
            str(len(made)),
            _shown(choice.unchanged),
            _shown(choice.best),
            _shown(choice.test.value),
            *_interval(choice.gain),
        )
    fitted = [
        Text(f"{choice.source}: {describe_values(choice.values)} ({choice.reason})")
        for choice in report.choices
    ]
    return [*(Text(fact) for fact in search_facts(report)), table, *fitted]


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _interval(metric: "Metric") -> list[str]:
    ends = (metric.value, metric.low, metric.high)
    return ["-" if value is None else f"{value:+.4f}" for value in ends]
