"""The layouts of other tools: RecBole, Gorse, the Open Bandit Pipeline."""

from simulator.imports.presets.forms import COMMAS, LINES, LIST, TABS, TEXT, TIME
from simulator.imports.presets.item_rows import atomic_items, atomic_users, gorse_item, gorse_user
from simulator.imports.presets.layouts import clicked_rows, fields_of, from_records, renamed
from simulator.imports.presets.preset import Layout, Preset, PresetTable
from simulator.imports.raw import ColumnMapping

GORSE_ITEM = {
    **dict.fromkeys(("id", "comment"), TEXT),
    **dict.fromkeys(("categories", "labels"), LIST),
    "available_until": TIME,
}

RECBOLE = Preset(
    name="recbole",
    title="RecBole's atomic files",
    address="https://recbole.io/docs/user_guide/data/atomic_files.html",
    remarks=(
        "Columns of events are recognised by their names; `token_seq` is a list of words, or a text"
        " where the name ends in title, name, review, description, text or summary."
    ),
    layouts=(
        Layout(
            events=(PresetTable(("*.inter",), TABS),),
            items=PresetTable(("*.item",), TABS, reshape=atomic_items),
            users=PresetTable(("*.user",), TABS, reshape=atomic_users),
        ),
    ),
)

GORSE = Preset(
    name="gorse",
    title="Gorse's objects as JSON Lines",
    address="https://gorse.io/docs/concepts/data-objects.html",
    remarks="A hidden item has an `available_until` in 1970: it is learned from, and never chosen.",
    layouts=(
        Layout(
            events=(
                PresetTable(
                    ("feedback*.json*",),
                    LINES,
                    ColumnMapping(
                        user="user", item="item", time="time", type="type", time_unit="iso"
                    ),
                    from_records(
                        fields_of(
                            user="UserId", item="ItemId", type="FeedbackType", time="Timestamp"
                        ),
                        dict.fromkeys(("user", "item", "type", "time"), TEXT),
                    ),
                ),
            ),
            items=PresetTable(
                ("items*.json*",),
                LINES,
                reshape=from_records(gorse_item, GORSE_ITEM),
            ),
            users=PresetTable(
                ("users*.json*",),
                LINES,
                reshape=from_records(gorse_user, {"id": TEXT, "labels": LIST}),
            ),
        ),
    ),
)

OPEN_BANDIT = Preset(
    name="open-bandit",
    title="Open Bandit Dataset",
    address="https://github.com/st-tech/zr-obp/blob/master/obd/README.md",
    aliases=("obd",),
    remarks=(
        "The clicked rows of one campaign. Nobody is named in it: a user is a group of visitors"
        " with the same features. To evaluate policies on its propensities, replay it:"
        " `banditloop replay`."
    ),
    one_of=True,
    layouts=(
        Layout(
            events=(
                PresetTable(
                    ("all.csv", "men.csv", "women.csv"),
                    COMMAS,
                    ColumnMapping(
                        user="group",
                        item="item_id",
                        time="timestamp",
                        time_unit="iso",
                        event_type="click",
                    ),
                    clicked_rows,
                ),
            ),
            items=PresetTable(
                ("item_context.csv",),
                COMMAS,
                reshape=renamed(
                    numbers=("item_feature_0",),
                    id="item_id",
                    **{f"item_feature_{n}": f"item_feature_{n}" for n in range(4)},
                ),
            ),
        ),
    ),
)

TOOL_PRESETS = (RECBOLE, GORSE, OPEN_BANDIT)
