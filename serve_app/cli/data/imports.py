"""``banditloop data import``: tables as they are become a data set."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bandits.durations import duration_ms
from bandits.errors import DataSetError, InvalidFieldError
from serve_app.cli.options import (
    Encoding,
    EventColumns,
    EventWeights,
    ItemColumns,
    Preset,
    Quote,
    RatingScale,
    Separator,
    UserColumns,
    folder_to_write,
    options_from,
)
from serve_app.cli.terminal import empty_table, output, progress_count, say

if TYPE_CHECKING:
    from policies.data.manifest import Manifest, WeightOptions
    from simulator.imports import Cleaning, TableFormat


@dataclass(frozen=True)
class ImportOptions:
    """The options of ``banditloop data import``."""

    folder: Annotated[Path, folder_to_write("Folder to write the data set to")]
    events: Annotated[
        list[str],
        typer.Option(
            help="Files of what users did: a path, a glob or a URI; CSV, TSV, JSON Lines or"
            " Parquet, perhaps .gz or .zst. May be given several times. With --preset, a folder"
        ),
    ]
    items: Annotated[
        list[str] | None, typer.Option(help="Files of the items and their features")
    ] = None
    users: Annotated[list[str] | None, typer.Option(help="Files of the users")] = None
    columns: EventColumns = None
    item_columns: ItemColumns = None
    user_columns: UserColumns = None
    preset: Preset = None
    weights: EventWeights = None
    half_life: Annotated[
        str | None,
        typer.Option(help="Age at which an event is worth half, e.g. 30d or 12h [default: never]"),
    ] = None
    rating_scale: RatingScale = None
    separator: Separator = None
    header: Annotated[
        bool | None,
        typer.Option(
            "--header/--no-header",
            help="Whether the first line names the columns; without names they are column_1 and so"
            " on [default: found out]",
        ),
    ] = None
    quote: Quote = '"'
    encoding: Encoding = "utf-8"
    absent: Annotated[
        str | None,
        typer.Option(
            help="Texts that stand for no id, separated by commas; empty: none does [default: NA,"
            " N/A, null, NULL, None, nan, NaN and \\N]"
        ),
    ] = None
    longest_id: Annotated[int, typer.Option(help="Leave out ids of more bytes")] = 1024
    earliest: Annotated[str, typer.Option(help="Leave out events before this day")] = "1980-01-01"
    future_days: Annotated[
        float, typer.Option(help="Leave out events that are so many days ahead of now")
    ] = 1.0
    untimed: Annotated[str, typer.Option(help="keep or drop events whose time is empty")] = "keep"
    unlisted: Annotated[str, typer.Option(help="keep or drop events whose item --items lacks")] = (
        "keep"
    )
    duplicates: Annotated[
        str, typer.Option(help="keep or drop events that repeat another one in everything")
    ] = "drop"
    window: Annotated[
        str | None,
        typer.Option(
            help="Of a user's events of one item and type within so long, e.g. 30s, keep the first"
            " [default: keep all]"
        ),
    ] = None
    most_a_minute: Annotated[
        int,
        typer.Option(
            help="Leave out users with more events in a minute: they are bots; 0: leave nobody out"
        ),
    ] = 300
    min_user_events: Annotated[
        int, typer.Option(help="Leave out users with fewer events, until none has fewer")
    ] = 1
    min_item_events: Annotated[
        int, typer.Option(help="Leave out items with fewer events, until none has fewer")
    ] = 1

    def form(self) -> "TableFormat":
        """Return how tables are read."""
        import codecs

        from simulator.imports import TableFormat
        from simulator.imports.files.delimited import DOUBLE

        try:
            codecs.lookup(self.encoding)
        except LookupError:
            raise DataSetError(
                f"--encoding: there is no encoding {self.encoding!r}; latin-1, cp1252 and utf-16"
                " are usual ones",
                "encoding",
            ) from None
        separator = {"\\t": "\t", "tab": "\t"}.get(self.separator or "", self.separator)
        for option, text in (("--separator", separator), ("--quote", self.quote or None)):
            is_double = option == "--separator" and text == DOUBLE
            if text is not None and len(text.encode()) != 1 and not is_double:
                raise DataSetError(
                    f"{option} is one ASCII character{' or ::' * (option == '--separator')}, not"
                    f" {text!r}",
                    option.strip("-"),
                )
        return TableFormat(
            separator=separator,
            header=self.header,
            quote=self.quote or None,
            encoding=self.encoding,
        )

    def cleaning(self) -> "Cleaning":
        """Return what is left out."""
        from simulator.imports import Cleaning

        return Cleaning(
            **({} if self.absent is None else {"absent": self.absent}),
            longest_id=self.longest_id,
            earliest=self.earliest,
            future_days=self.future_days,
            untimed=self.untimed,
            unlisted=self.unlisted,
            duplicates=self.duplicates,
            window_s=None if self.window is None else seconds_of("--window", self.window),
            most_a_minute=self.most_a_minute,
            min_user_events=self.min_user_events,
            min_item_events=self.min_item_events,
        )

    def weighing(self) -> "WeightOptions":
        """Return what events are worth."""
        from policies.data.manifest import WeightOptions

        types: dict[str, float] = {}
        for name, weight in mapping_of("--weights", self.weights).items():
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                raise DataSetError(f"--weights: {name} is a number, not {weight!r}", "weights")
            types[name] = float(weight)

        scale = None
        if self.rating_scale is not None:
            try:
                lowest, highest = map(float, self.rating_scale.split(":"))
            except ValueError:
                raise DataSetError(
                    f"--rating-scale is the lowest and the highest rating, as 1:5, not"
                    f" {self.rating_scale!r}",
                    "rating_scale",
                ) from None
            scale = (lowest, highest)
        half_life = None if self.half_life is None else seconds_of("--half-life", self.half_life)
        return WeightOptions(types, half_life, scale)


@options_from(ImportOptions)
def import_tables(options: ImportOptions) -> None:
    """Make a data set of your tables.

    It says which column was taken for what, and counts every row that is left out by its reason.
    """
    form, cleaning, weights = options.form(), options.cleaning(), options.weighing()
    columns, item_columns, user_columns = (
        mapping_of(option, given)
        for option, given in (
            ("--columns", options.columns),
            ("--item-columns", options.item_columns),
            ("--user-columns", options.user_columns),
        )
    )

    from simulator.imports import import_data

    with progress_count("rows") as progress:
        tasks: dict[str, Any] = {}

        def show(stage: str, rows: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=None)
            progress.update(tasks[stage], advance=rows)

        data_set = import_data(
            options.folder,
            options.events,
            items=options.items or (),
            users=options.users or (),
            columns=columns,
            item_columns=item_columns,
            user_columns=user_columns,
            preset=options.preset,
            form=form,
            cleaning=cleaning,
            weights=weights,
            progress=show,
        )
    _report(data_set.manifest, options.folder)


def _report(manifest: "Manifest", folder: Path) -> None:
    counts, columns = manifest.counts, manifest.columns
    taken = ", ".join(f"{kind} = {name}" for kind, name in columns.items() if kind != "time_unit")
    say("columns: ", taken)
    if "time_unit" in columns:
        say("times:   ", columns["time_unit"])
    for note in manifest.notes:
        say("note:    ", note)

    if manifest.dropped or manifest.left_out:
        table = empty_table(
            "left out", "rows", "for example", numbers=("rows",), whole=("left out",)
        )
        for reason, dropped in manifest.dropped.items():
            where = f"row {dropped.row:,} of {dropped.file}"
            example = f"{where}: {dropped.example}" if dropped.example else where
            table.add_row(reason, f"{dropped.rows:,}", example)
        for reason, count in manifest.left_out.items():
            table.add_row(reason, f"{count:,}", "")
        output.print(table)

    say(
        ("imported", "green"),
        f"  {counts.events:,} of {manifest.rows_read:,} events, {counts.users:,} users,"
        f" {counts.listed_items:,} items  {folder}",
    )


def mapping_of(option: str, text: str | None) -> Mapping[str, Any]:
    """Return the YAML mapping that an option holds; {} if it is not given.

    Args:
        option: as it is typed.
        text: its value.

    Raises:
        DataSetError: it is no mapping.
    """
    from policies.typed_yaml import parse_yaml

    if text is None:
        return {}
    try:
        given = parse_yaml(text)
    except InvalidFieldError as error:
        raise DataSetError(f"{option}: {error.message}", option.strip("-")) from error
    if not isinstance(given, dict):
        raise DataSetError(
            f"{option} is a mapping, as '{{user: who}}' (a space after each colon), not {text!r}",
            option.strip("-"),
        )
    return {str(key): value for key, value in given.items()}


def seconds_of(option: str, text: str) -> float:
    """Return a duration such as ``30d``, in seconds.

    Args:
        option: as it is typed, for errors.
        text: a number, and s, m, h, d or w.

    Raises:
        DataSetError: it is no duration.
    """
    try:
        return duration_ms(text) / 1000
    except InvalidFieldError as error:
        raise DataSetError(f"{option}: {error.message}", option.strip("-")) from error
