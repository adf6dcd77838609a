"""The figures of `data show` are those of a plain count, however the events are cut into batches."""

from collections import Counter, defaultdict
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from policies.data.manifest import WeightOptions
from policies.data.writer import write_data_set
from simulator.data.page import data_page
from simulator.data.statistics import activity_of, popularity_of, summary_of

DAY = 86_400_000
START = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1000)


def some_events(seed, count=400):
    rng = np.random.default_rng(seed)
    return {
        "user": [f"u{u}" for u in rng.integers(0, 30, count)],
        "item": [f"i{i}" for i in rng.geometric(0.2, count)],
        "type": rng.choice(["view", "cart"], count).tolist(),
        # Few different times, so that some events are equal.
        "time": [
            None if late == 4 else START + int(late) * DAY + 7 for late in rng.integers(0, 5, count)
        ],
        "value": [None if v == 0 else float(v) for v in rng.integers(0, 4, count)],
    }


def data_set_of(folder, events, **options):
    times = pa.array(events["time"], pa.timestamp("ms", "UTC"))
    return write_data_set(folder, pa.table({**events, "time": times}), **options)


class Cut:
    """A data set whose events come in batches of some rows."""

    def __init__(self, data, rows):
        self.manifest, self._data, self._rows = data.manifest, data, rows

    def events(self):
        for batch in self._data.events():
            for start in range(0, batch.num_rows, self._rows):
                yield batch.slice(start, self._rows)


@pytest.mark.parametrize("rows", [1, 3, 17, 1000])
def test_the_figures_are_those_of_a_plain_count(tmp_path, rows):
    events = some_events(rows)
    found = summary_of(Cut(data_set_of(tmp_path / "data", events), rows))

    whole = list(zip(*(events[name] for name in ("user", "item", "type", "time")), strict=True))
    users, items = Counter(events["user"]), Counter(events["item"])
    pairs = len({row[:2] for row in whole})
    assert found.events == len(whole)
    assert found.pairs == pairs
    assert found.density == pairs / (len(users) * len(items))
    assert found.repeats == pytest.approx(1 - pairs / len(whole))
    assert found.duplicates == len(whole) - len(set(whole)) > 0
    assert found.untimed == events["time"].count(None) > 0
    assert (found.first_ms, found.last_ms) == (START + 7, START + 3 * DAY + 7)

    assert {each.type: each.events for each in found.types} == Counter(events["type"])
    days = defaultdict(Counter)
    for _, _, kind, time in whole:
        if time is not None:
            days[datetime.fromtimestamp(time / 1000, UTC).date().isoformat()][kind] += 1
    assert found.days == days

    for activity, counts in ((found.users, users), (found.items, items)):
        assert activity.count == len(counts)
        assert activity.most == max(counts.values())
        assert activity.median == np.median(list(counts.values()))
        assert activity.few == sum(c < 5 for c in counts.values()) / len(counts)
        assert sum(activity.bands.values()) == len(counts)
        assert activity.bands["5 to 9"] == sum(5 <= c < 10 for c in counts.values())

    rated = [value for value in events["value"] if value is not None]
    assert found.values.events == len(rated)
    assert found.values.mean == pytest.approx(np.mean(rated))
    assert found.values.counts == {
        f"{value:g}": count for value, count in sorted(Counter(rated).items())
    }


def test_popularity_is_between_all_alike_and_all_of_one():
    alike = popularity_of(np.full(200, 7))
    assert alike.gini == pytest.approx(0.0)
    assert alike.top == pytest.approx({"1%": 0.01, "5%": 0.05, "10%": 0.1, "20%": 0.2, "50%": 0.5})
    assert alike.curve == pytest.approx(np.linspace(0, 1, 101).tolist())

    one = popularity_of(np.array([1000, *[1] * 99]))
    assert one.top["1%"] == pytest.approx(1000 / 1099)
    assert 0.8 < one.gini < 1.0

    # The index of a direct sum of differences (Gini 1912).
    counts = np.random.default_rng(3).integers(1, 50, 60)
    differences = np.abs(counts[:, None] - counts).sum()
    assert popularity_of(counts).gini == pytest.approx(differences / (2 * 60**2 * counts.mean()))


def test_bands_begin_where_their_names_say():
    bands = activity_of(np.array([1, 2, 4, 5, 9, 10, 19, 20, 49, 50, 99, 100, 999, 1000])).bands
    assert list(bands.values()) == [1, 2, 2, 2, 2, 2, 2, 1]


def test_what_should_be_known_is_said(tmp_path):
    events = {"user": ["a", "b"], "item": ["x", "y"], "time": [None, None], "value": [1.0, 2.0]}
    items = [{"id": name, "features": {}} for name in ("x", "y", "z")]
    said = " ".join(summary_of(data_set_of(tmp_path / "data", events, items=items)).remarks)
    assert "No event has a time" in said
    assert "--rating-scale 1:2" in said
    assert "100% of the users have fewer than 5 events" in said
    assert "1 of 3 items have no event" in said
    assert "weighs the same" not in said  # there is one type


def test_nothing_is_said_where_all_is_well(tmp_path):
    events = {
        "user": [f"u{n % 10}" for n in range(200)],
        "item": [f"i{n % 20}" for n in range(200)],
        "type": ["view", "cart"] * 100,
        "time": [START + n * DAY for n in range(200)],
    }
    weights = WeightOptions(types={"cart": 3.0})
    assert summary_of(data_set_of(tmp_path / "data", events, weights=weights)).remarks == []


def test_the_page_needs_nothing_else_and_escapes_what_it_shows(tmp_path):
    events = some_events(1)
    events["type"] = ["<b>" if kind == "cart" else kind for kind in events["type"]]
    page = data_page(summary_of(data_set_of(tmp_path / "data", events, name="<i>shop")))
    assert "<b>" not in page.replace("<div><b>", "").replace(" <b>", "")
    assert "&lt;i&gt;shop" in page
    assert "http" not in page
    assert page.count("<svg") == 5
    assert "Events per day" in page


@pytest.mark.parametrize(
    ("days", "title"), [(100, "per day"), (700, "per week"), (3000, "per 4 weeks")]
)
def test_long_times_are_drawn_by_longer_spans(tmp_path, days, title):
    events = {"user": ["a"] * 9, "item": ["x"] * 9, "time": [START] * 8 + [START + days * DAY]}
    page = data_page(summary_of(data_set_of(tmp_path / "data", events)))
    assert f"Events {title}</h2>" in page
