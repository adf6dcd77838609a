"""Presets of what people did in shops: RetailRocket, Amazon, Yoochoose, Taobao."""

from functools import partial

from simulator.imports.presets.forms import (
    COMMAS,
    LINES,
    LIST,
    NUMBER,
    RATED,
    RATED_ROWS,
    TEXT,
    bare_table,
)
from simulator.imports.presets.item_rows import amazon_item, latest_properties
from simulator.imports.presets.layouts import fields_of, from_records
from simulator.imports.presets.preset import Layout, Preset, PresetTable
from simulator.imports.raw import ColumnMapping

AMAZON_ITEM = {
    **dict.fromkeys(("id", "title", "brand", "main_category", "description"), TEXT),
    "categories": LIST,
    "price": NUMBER,
}
RETAILROCKET = Preset(
    name="retailrocket",
    title="RetailRocket",
    address="https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset",
    weights={"view": 1, "addtocart": 3, "transaction": 10},
    remarks="Of the items' properties, the latest category and availability; others are hashed.",
    layouts=(
        Layout(
            events=(
                PresetTable(
                    ("events.csv",),
                    COMMAS,
                    ColumnMapping(
                        user="visitorid",
                        item="itemid",
                        time="timestamp",
                        type="event",
                        time_unit="ms",
                    ),
                ),
            ),
            items=PresetTable(("item_properties*.csv",), COMMAS, reshape=latest_properties),
        ),
    ),
)

AMAZON_2014 = Preset(
    name="amazon-2014",
    title="Amazon reviews, 2014",
    address="https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html",
    rating_scale=(1, 5),
    remarks=(
        "The reviews, or the ratings alone (`ratings_Books.csv`). The metadata are Python dicts,"
        " one a line; only literals are read."
    ),
    layouts=(
        Layout(
            events=(
                PresetTable(
                    ("reviews_*.json",),
                    LINES,
                    RATED,
                    from_records(
                        fields_of(
                            user="reviewerID", item="asin", rating="overall", time="unixReviewTime"
                        ),
                        RATED_ROWS,
                    ),
                ),
            ),
            items=PresetTable(
                ("meta_*.json",),
                LINES,
                reshape=from_records(partial(amazon_item, key="asin"), AMAZON_ITEM),
            ),
        ),
        Layout(
            events=(
                PresetTable(
                    ("ratings_*.csv",), bare_table(",", "user", "item", "rating", "time"), RATED
                ),
            ),
            items=PresetTable(
                ("meta_*.json",),
                LINES,
                reshape=from_records(partial(amazon_item, key="asin"), AMAZON_ITEM),
            ),
        ),
    ),
)

AMAZON_2023_ITEMS = PresetTable(
    ("meta_*.jsonl",),
    LINES,
    reshape=from_records(partial(amazon_item, key="parent_asin"), AMAZON_ITEM),
)
AMAZON_2023 = Preset(
    name="amazon-2023",
    title="Amazon reviews, 2023",
    address="https://amazon-reviews-2023.github.io/data_processing/",
    rating_scale=(1, 5),
    remarks=(
        "The reviews, or the ratings alone (CSV). An item is a `parent_asin`: variants of one"
        " product are one item, as in the metadata."
    ),
    layouts=(
        Layout(
            events=(
                PresetTable(
                    ("*.jsonl",),
                    LINES,
                    ColumnMapping(
                        user="user", item="item", value="rating", time="time", time_unit="ms"
                    ),
                    from_records(
                        fields_of(
                            user="user_id", item="parent_asin", rating="rating", time="timestamp"
                        ),
                        RATED_ROWS,
                    ),
                    besides=("meta_*",),
                ),
            ),
            items=AMAZON_2023_ITEMS,
        ),
        Layout(
            events=(
                PresetTable(
                    ("*.csv",),
                    COMMAS,
                    ColumnMapping(
                        user="user_id",
                        item="parent_asin",
                        value="rating",
                        time="timestamp",
                        time_unit="ms",
                    ),
                ),
            ),
            items=AMAZON_2023_ITEMS,
        ),
    ),
)
YOOCHOOSE = Preset(
    name="yoochoose",
    title="Yoochoose, RecSys Challenge 2015",
    address="https://github.com/hidasib/GRU4Rec",
    weights={"click": 1, "buy": 5},
    remarks="A user is a session: it has no other.",
    layouts=(
        Layout(
            events=(
                PresetTable(
                    ("yoochoose-clicks.dat",),
                    bare_table(",", "session", "time", "item", "category"),
                    ColumnMapping(
                        user="session",
                        item="item",
                        time="time",
                        time_unit="iso",
                        event_type="click",
                    ),
                ),
                PresetTable(
                    ("yoochoose-buys.dat",),
                    bare_table(",", "session", "time", "item", "price", "quantity"),
                    ColumnMapping(
                        user="session", item="item", time="time", time_unit="iso", event_type="buy"
                    ),
                ),
            ),
        ),
    ),
)

TAOBAO = Preset(
    name="taobao",
    title="Taobao, UserBehavior",
    address="https://tianchi.aliyun.com/dataset/649",
    weights={"pv": 1, "fav": 2, "cart": 3, "buy": 5},
    remarks="The items' categories are left out: they stand with the events.",
    layouts=(
        Layout(
            events=(
                PresetTable(
                    ("UserBehavior.csv",),
                    bare_table(",", "user", "item", "category", "behavior", "time"),
                    ColumnMapping(
                        user="user", item="item", time="time", type="behavior", time_unit="s"
                    ),
                ),
            ),
        ),
    ),
)

SHOP_PRESETS = (RETAILROCKET, AMAZON_2014, AMAZON_2023, YOOCHOOSE, TAOBAO)
