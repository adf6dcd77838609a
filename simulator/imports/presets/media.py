"""Presets of what people read, heard and played: MIND, Last.fm, Book-Crossing, Steam."""

from simulator.imports.presets.forms import LATIN_LINES, LINES, LIST, NUMBER, TABS, TEXT, bare_table
from simulator.imports.presets.item_rows import escaped_books, news_items, steam_item
from simulator.imports.presets.layouts import (
    clicked_impressions,
    fields_of,
    from_records,
    implicit_zeros,
    renamed,
)
from simulator.imports.presets.preset import Layout, Preset, PresetTable
from simulator.imports.raw import ColumnMapping, TableFormat

STEAM_GAME = {
    **dict.fromkeys(("id", "title", "developer"), TEXT),
    **dict.fromkeys(("genres", "tags"), LIST),
    "price": NUMBER,
}

MIND = Preset(
    name="mind",
    title="MIND, Microsoft News",
    address="https://learn.microsoft.com/azure/open-datasets/dataset-microsoft-news",
    remarks=(
        "The clicked items of each impression are events. The history before it is left out: it has"
        " no times. Of the articles: category, subcategory, title, abstract."
    ),
    layouts=(
        Layout(
            events=(
                PresetTable(
                    ("behaviors.tsv",),
                    bare_table("\t", "impression", "user", "time", "history", "impressions"),
                    ColumnMapping(
                        user="user",
                        item="news",
                        time="time",
                        time_unit="%m/%d/%Y %I:%M:%S %p",
                        event_type="click",
                    ),
                    clicked_impressions,
                ),
            ),
            items=PresetTable(
                ("news.tsv",),
                bare_table(
                    "\t",
                    *("news", "category", "subcategory", "title", "abstract", "url"),
                    *("title_entities", "abstract_entities"),
                ),
                reshape=news_items,
            ),
        ),
    ),
)

LASTFM_1K = Preset(
    name="lastfm-1k",
    title="Last.fm 1K",
    address="http://ocelma.net/MusicRecommendationDataset/lastfm-1K.html",
    remarks="An item is an artist, by name: many artists and tracks have no id.",
    layouts=(
        Layout(
            events=(
                PresetTable(
                    ("userid-timestamp-artid-artname-traid-traname.tsv",),
                    bare_table("\t", "userid", "timestamp", "artid", "artname", "traid", "traname"),
                    ColumnMapping(
                        user="userid",
                        item="artname",
                        time="timestamp",
                        time_unit="iso",
                        event_type="listen",
                    ),
                ),
            ),
            users=PresetTable(
                ("userid-profile.tsv",),
                TABS,
                reshape=renamed(id="#id", gender="gender", age="age", country="country"),
            ),
        ),
    ),
)

BOOK_CROSSING = Preset(
    name="book-crossing",
    title="Book-Crossing",
    address="http://www2.informatik.uni-freiburg.de/~cziegler/BX/",
    rating_scale=(1, 10),
    remarks=(
        "Latin-1. A rating of 0 is an event of type `implicit` without a value, every other one of"
        " type `rating`. There are no times. Users are left out: place and age identify people."
    ),
    layouts=(
        Layout(
            events=(
                PresetTable(
                    ("BX-Book-Ratings.csv",),
                    TableFormat(kind="delimited", separator=";", header=True, encoding="latin-1"),
                    ColumnMapping(user="User-ID", item="ISBN", value="Book-Rating", type="kind"),
                    implicit_zeros("Book-Rating"),
                ),
            ),
            items=PresetTable(("BX-Books.csv",), LATIN_LINES, reshape=escaped_books),
        ),
    ),
)

STEAM = Preset(
    name="steam",
    title="Steam reviews",
    address="https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data",
    remarks=(
        "The published lines are Python dicts: only literals are read, a fiftieth as fast as JSON."
        " A user is a `username`: few rows have a `user_id`."
    ),
    layouts=(
        Layout(
            events=(
                PresetTable(
                    ("steam_reviews.json*", "steam_new.json*"),
                    LINES,
                    ColumnMapping(
                        user="user", item="item", time="time", time_unit="iso", event_type="review"
                    ),
                    from_records(
                        fields_of(user="username", item="product_id", time="date"),
                        {"user": TEXT, "item": TEXT, "time": TEXT},
                    ),
                ),
            ),
            items=PresetTable(
                ("steam_games.json*",),
                LINES,
                reshape=from_records(steam_item, STEAM_GAME),
            ),
        ),
    ),
)

MEDIA_PRESETS = (MIND, LASTFM_1K, BOOK_CROSSING, STEAM)
