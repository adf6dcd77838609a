"""Times are recognised by their magnitude or their form; what nobody can know is asked."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from bandits.errors import DataSetError
from simulator.imports.times import read_times, recognise_times, time_reading

MOMENT = datetime(2015, 8, 13, 22, 30, 15, tzinfo=UTC)
S = int(MOMENT.timestamp())


def milliseconds(values, unit=None):
    array = values if isinstance(values, pa.Array) else pa.array(values)
    unit = unit or recognise_times(array, "time", "events.csv").unit
    return read_times(array, unit).cast(pa.int64()).to_pylist()


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        (S, "s"),
        (str(S), "s"),
        (f"{S}.0", "s"),
        (float(S), "s"),
        (S * 10**3, "ms"),
        (str(S * 10**3), "ms"),
        (S * 10**6, "us"),
        (S * 10**9, "ns"),
        (str(S * 10**9), "ns"),
        ("2015-08-13T22:30:15Z", "iso"),
        ("2015-08-13T22:30:15.000Z", "iso"),
        ("2015-08-13 22:30:15", "iso"),
        ("2015-08-13 22:30:15 UTC", "iso"),
        ("2015-08-14 00:30:15+02:00", "iso"),
        ("2015-08-14 00:30:15 +0200", "iso"),
        ("2015-08-13 22:30:15,000", "iso"),
        ("2015-08-13T22:30:15.000000000", "iso"),
        (" 2015-08-13 22:30:15 ", "iso"),
        ("20150813223015", "%Y%m%d%H%M%S"),
        ("Thu Aug 13 15:30:15 -0700 2015", "%a %b %d %H:%M:%S %z %Y"),
        ("Thu Aug 13 22:30:15 2015", "%a %b %d %H:%M:%S %Y"),
        ("Fri, 14 Aug 2015 00:30:15 +0200", "%a, %d %b %Y %H:%M:%S %z"),
        ("Thu, 13 Aug 2015 22:30:15 GMT", "%a, %d %b %Y %H:%M:%S GMT"),
    ],
)
def test_one_moment_is_read_from_every_form(value, unit):
    assert recognise_times(pa.array([value]), "time", "events.csv").unit == unit
    assert milliseconds([value]) == [S * 1000]


def test_columns_of_times_and_of_dates_are_read_as_they_are():
    naive = MOMENT.replace(tzinfo=None)
    assert milliseconds(pa.array([MOMENT], pa.timestamp("ns", "Europe/Berlin"))) == [S * 1000]
    assert milliseconds(pa.array([naive], pa.timestamp("s"))) == [S * 1000]
    day = int(datetime(2015, 8, 13, tzinfo=UTC).timestamp()) * 1000
    assert milliseconds(pa.array([MOMENT.date()], pa.date32())) == [day]
    assert milliseconds(["2015-08-13"]) == milliseconds([20150813]) == [day]
    assert milliseconds(pa.array([str(S)] * 3).dictionary_encode()) == [S * 1000] * 3


def test_fractions_of_a_second_survive():
    assert milliseconds([f"{S}.25"]) == [S * 1000 + 250]
    assert milliseconds(["2015-08-13T22:30:15.277Z"]) == [S * 1000 + 277]
    assert milliseconds([S * 10**9 + 999_999_999]) == [S * 1000 + 999]


def test_what_the_report_says():
    def sentence(*values):
        return recognise_times(pa.array(values), "time", "events.csv").sentence

    assert sentence(S) == "seconds since 1970"
    assert sentence("2015-08-13T22:30:15Z") == "ISO 8601 with a zone"
    assert sentence("2015-08-13") == "ISO 8601, without a zone: taken as UTC"
    assert "some without a zone" in sentence("2015-08-13T22:30:15Z", "2015-08-13T22:30:15")


def test_single_bad_values_are_null_and_the_others_are_read():
    assert milliseconds([str(S), "soon", "", None, "nan", "12e", str(S + 1)]) == [
        S * 1000,
        None,
        None,
        None,
        None,
        None,
        S * 1000 + 1000,
    ]
    good, bad = "2015-08-13 22:30:15", "2015-02-30 00:00:00"
    assert milliseconds([good, bad, "soon", good + "Z", "2015-13-01"]) == [
        S * 1000,
        None,
        None,
        S * 1000,
        None,
    ]
    assert milliseconds([float(S), float("nan"), float("inf")]) == [S * 1000, None, None]


def test_a_rare_value_of_another_unit_comes_out_absurd_and_many_are_an_error():
    rare = [S] * 200 + [S * 1000]
    assert milliseconds(rare)[-1] > 10**15
    with pytest.raises(
        DataSetError, match=r"mixes units: seconds since 1970 .* in row 5\) and milliseconds"
    ):
        recognise_times(pa.array([S, S, S * 1000]), "time", "events.csv", first_row=5)
    with pytest.raises(DataSetError, match="mixes units: ISO 8601"):
        recognise_times(pa.array(["2015-08-13", "2015-08-13", str(S)]), "time", "events.csv")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["yesterday", "today"], "holds words .'yesterday' in row 1."),
        (["", None], "is empty in its first 2 rows"),
        ([1, 2, 3], "numbers that are no times between 1980 and 2100 .1 in row 1."),
        ([2014, 2015], "holds years .2014 in row 1."),
        (
            ["3/4/2014 9:05", "5/6/2014 10:00"],
            r'time_unit: "%d/%m/%Y %H:%M".* or .*"%m/%d/%Y %H:%M"',
        ),
        (
            ["11/13/2019 8:36:57 AM"],
            r"say which: --columns '\{time_unit: \"%m/%d/%Y %I:%M:%S %p\"\}'$",
        ),
        (["13.11.19"], r"say which: --columns '\{time_unit: \"%d.%m.%y\"\}'$"),
    ],
)
def test_what_is_no_time_is_one_line_that_says_what_to_write(values, message):
    with pytest.raises(DataSetError, match=rf"events.csv: the time column 'when'.*{message}"):
        recognise_times(pa.array(values), "when", "events.csv")


def test_a_unit_or_a_pattern_can_be_given():
    assert milliseconds(["13/08/2015 10:30:15 PM", "x"], "%d/%m/%Y %I:%M:%S %p") == [
        S * 1000,
        None,
    ]
    assert milliseconds([1, 2], "s") == [1000, 2000]
    assert time_reading("%d/%m/%Y").sentence == "times as %d/%m/%Y, as given"
    with pytest.raises(DataSetError, match="there is no time unit 'minutes'"):
        time_reading("minutes")


def test_numbers_beyond_what_a_time_can_hold_do_not_overflow():
    assert milliseconds([S, 2**62], "s")[1] > 10**15
    assert milliseconds([float(S), 1e300], "s")[1] > 10**15
