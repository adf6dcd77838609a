"""Ratings of films: MovieLens in its layouts, and Netflix."""

from simulator.imports.presets.forms import COMMAS, LATIN_LINES, LINES, RATED, TABS, bare_table
from simulator.imports.presets.item_rows import (
    atomic_films,
    barred_genres,
    flagged_genres,
    titled_movies,
)
from simulator.imports.presets.layouts import movie_blocks, renamed, split_lines
from simulator.imports.presets.preset import Layout, Preset, PresetTable
from simulator.imports.raw import ColumnMapping

GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip
"""The columns of genres of u.item, in the order of u.genre."""

MOVIELENS_100K = Preset(
    name="movielens-100k",
    title="MovieLens 100K, also as RecBole has it (`banditloop data get ml-100k`)",
    address="https://files.grouplens.org/datasets/movielens/ml-100k-README.txt",
    aliases=("ml-100k",),
    rating_scale=(1, 5),
    remarks="Zip codes are left out: with age and occupation they identify people.",
    layouts=(
        Layout(
            events=(
                PresetTable(("u.data",), bare_table("\t", "user", "item", "rating", "time"), RATED),
            ),
            items=PresetTable(
                ("u.item",),
                bare_table(
                    "|",
                    "movie",
                    "title",
                    "released",
                    "on_video",
                    "url",
                    *GENRES,
                    encoding="latin-1",
                ),
                reshape=flagged_genres(GENRES),
            ),
            users=PresetTable(
                ("u.user",),
                bare_table("|", "user", "age", "gender", "occupation", "zip"),
                reshape=renamed(
                    numbers=("age",), id="user", age="age", gender="gender", occupation="occupation"
                ),
            ),
        ),
        Layout(
            events=(
                PresetTable(
                    ("ml-100k.inter",),
                    TABS,
                    ColumnMapping(
                        user="user_id:token",
                        item="item_id:token",
                        value="rating:float",
                        time="timestamp:float",
                        time_unit="s",
                    ),
                ),
            ),
            items=PresetTable(("ml-100k.item",), TABS, reshape=atomic_films),
            users=PresetTable(
                ("ml-100k.user",),
                TABS,
                reshape=renamed(
                    numbers=("age",),
                    id="user_id:token",
                    age="age:token",
                    gender="gender:token",
                    occupation="occupation:token",
                ),
            ),
        ),
    ),
)

MOVIELENS_1M = Preset(
    name="movielens-1m",
    title="MovieLens 1M and 10M (`::`)",
    address="https://files.grouplens.org/datasets/movielens/ml-1m-README.txt",
    aliases=("ml-1m", "ml-10m", "movielens-10m"),
    rating_scale=(1, 5),
    remarks="Zip codes are left out. For 10M, say `--rating-scale 0.5:5`.",
    layouts=(
        Layout(
            events=(
                PresetTable(
                    ("ratings.dat",),
                    LATIN_LINES,
                    RATED,
                    split_lines("::", ("user", "item", "rating", "time")),
                ),
            ),
            items=PresetTable(
                ("movies.dat",),
                LATIN_LINES,
                reshape=lambda rows: barred_genres(
                    split_lines("::", ("id", "title", "genres"))(rows)
                ),
            ),
            users=PresetTable(
                ("users.dat",),
                LATIN_LINES,
                reshape=lambda rows: renamed(
                    id="id", gender="gender", age="age", occupation="occupation"
                )(split_lines("::", ("id", "gender", "age", "occupation", "zip"))(rows)),
            ),
        ),
    ),
)

MOVIELENS_25M = Preset(
    name="movielens-25m",
    title="MovieLens 20M, 25M, 32M and latest (CSV)",
    address="https://files.grouplens.org/datasets/movielens/ml-32m-README.html",
    aliases=(
        "ml-20m",
        "ml-25m",
        "ml-32m",
        "ml-latest",
        "ml-latest-small",
        "movielens-20m",
        "movielens-32m",
        "movielens-latest",
    ),
    rating_scale=(0.5, 5),
    layouts=(
        Layout(
            events=(
                PresetTable(
                    ("ratings.csv",),
                    COMMAS,
                    ColumnMapping(
                        user="userId",
                        item="movieId",
                        value="rating",
                        time="timestamp",
                        time_unit="s",
                    ),
                ),
            ),
            items=PresetTable(("movies.csv",), COMMAS, reshape=barred_genres),
        ),
    ),
)

NETFLIX = Preset(
    name="netflix",
    title="Netflix Prize",
    address="https://www.kaggle.com/datasets/netflix-inc/netflix-prize-data",
    rating_scale=(1, 5),
    remarks="Ratings stand in blocks under `movie:`, in a few files or in one a movie.",
    layouts=(
        Layout(
            events=(
                PresetTable(
                    ("combined_data_*.txt", "mv_*.txt"),
                    LINES,
                    ColumnMapping(
                        user="user", item="movie", value="rating", time="date", time_unit="iso"
                    ),
                    movie_blocks,
                ),
            ),
            items=PresetTable(
                ("movie_titles.*",),
                LATIN_LINES,
                reshape=titled_movies,
            ),
        ),
    ),
)

FILM_PRESETS = (MOVIELENS_100K, MOVIELENS_1M, MOVIELENS_25M, NETFLIX)
