"""Where a reader of a whole log begins."""

import pytest

from bandits.errors import DataUnavailableError
from serve_app.admin.readable_logs import position_since

END = "1732000000000-5"


@pytest.mark.parametrize(
    ("since", "position"),
    [
        (None, "0-0"),
        ("1731999999999-3", "1731999999999-3"),
        ("90s", "1731999910000-0"),
        ("2h", "1731992800000-0"),
        ("40000d", "0-0"),
        ("2024-11-19T07:06:40", "1732000000000-0"),
        ("2024-11-19T08:06:40+01:00", "1732000000000-0"),
    ],
)
def test_a_log_is_read_since_an_entry_a_span_before_its_end_or_a_time(since, position):
    assert position_since(since, END) == position


@pytest.mark.parametrize("since", ["", "5", "5w", "yesterday", "1-2-3"])
def test_anything_else_is_refused(since):
    with pytest.raises(DataUnavailableError) as error:
        position_since(since, END)
    assert error.value.target == "since"
