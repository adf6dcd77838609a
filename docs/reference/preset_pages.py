"""The page of presets, from the presets themselves."""

from describe import table

from simulator.imports.presets import PRESETS, Preset
from simulator.imports.presets.preset import PresetTable
from simulator.imports.raw import ColumnMapping


def presets() -> str:
    """Return the page of the layouts that an import knows."""
    rows = [
        (f"[`{name}`](#{name})", preset.title, ", ".join(_files(preset)))
        for name, preset in PRESETS.items()
    ]
    parts = [
        "# Presets of imports",
        (
            "Well-known data sets in the layouts in which they are published: `banditloop data"
            " import DIR --preset NAME --events FOLDER` takes the folder, or some of its files,"
            " local or by a URI, compressed (`.gz`, `.zst`) or not. A folder is searched with"
            " those in it. Nothing is downloaded: each data set has terms of its own, on the page"
            " that is linked. A file that is not in the layout is an error that says what is"
            " missing; an option such as `--weights` or `--rating-scale` comes before the preset's."
        ),
        table(("preset", "data set", "files of events"), rows),
    ]
    for preset in PRESETS.values():
        parts += _section(preset)
    return "\n\n".join(parts)


def _section(preset: Preset) -> list[str]:
    """Return what is said of one preset."""
    facts = [("layout described at", f"<{preset.address}>")]
    if preset.aliases:
        facts.append(("also", ", ".join(f"`{name}`" for name in preset.aliases)))
    for number, layout in enumerate(preset.layouts, 1):
        which = f" ({number})" if len(preset.layouts) > 1 else ""
        facts += [
            (f"events{which}", f"{_patterns(events)}: {_mapping(events.mapping)}")
            for events in layout.events
        ]
        if layout.items:
            facts.append((f"items{which}", _patterns(layout.items)))
        if layout.users:
            facts.append((f"users{which}", _patterns(layout.users)))
    if preset.weights:
        weights = ", ".join(f"{name} {weight:g}" for name, weight in preset.weights.items())
        facts.append(("weights", weights))
    if preset.rating_scale:
        facts.append(("ratings", "{:g} to {:g}".format(*preset.rating_scale)))

    parts = [f"## {preset.name}", f"{preset.title}.", table(("", ""), facts)]
    return [*parts, preset.remarks] if preset.remarks else parts


def _files(preset: Preset) -> list[str]:
    patterns = [p for layout in preset.layouts for t in layout.events for p in t.patterns]
    return [f"`{pattern}`" for pattern in patterns]


def _patterns(part: PresetTable) -> str:
    return ", ".join(f"`{pattern}`" for pattern in part.patterns)


def _mapping(mapping: ColumnMapping | None) -> str:
    """Return which column is what, in words."""
    if mapping is None:
        return "columns are recognised by their names"
    said = [f"{field} `{column}`" for field, column in mapping.columns.items()]
    if mapping.event_type:
        said.append(f"type is always `{mapping.event_type}`")
    if mapping.time_unit:
        said.append(f"times in `{mapping.time_unit}`")
    return ", ".join(said)
