"""Presets: the layouts in which well-known data sets are published, as tables to import."""

from collections.abc import Sequence

from simulator.imports.presets.films import FILM_PRESETS
from simulator.imports.presets.media import MEDIA_PRESETS
from simulator.imports.presets.preset import Preset, find_preset
from simulator.imports.presets.shops import SHOP_PRESETS
from simulator.imports.presets.tools import TOOL_PRESETS
from simulator.imports.raw import RawTables

PRESETS: dict[str, Preset] = {
    preset.name: preset for preset in (*FILM_PRESETS, *SHOP_PRESETS, *MEDIA_PRESETS, *TOOL_PRESETS)
}
"""Every preset by its name."""

__all__ = ["PRESETS", "Preset", "preset_tables"]


def preset_tables(name: str, paths: Sequence[str]) -> RawTables:
    """Return the tables of a data set that is in a published layout.

    Args:
        name: The preset, or another name that it goes by.
        paths: A folder of the files, or some of the files; local, or URIs.

    Raises:
        DataSetError: There is no such preset, no file of its events is there, or a file is not in
            its layout. The error lists the presets, or the files that the preset reads.
    """
    return find_preset(name, PRESETS).find(paths)
