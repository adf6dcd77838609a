"""Columns are recognised by usual names, however they are written; what is ambiguous is asked."""

import pytest

from bandits.errors import DataSetError
from simulator.imports.columns import (
    ITEM_COLUMNS,
    USER_COLUMNS,
    looks_like_header,
    recognise_columns,
)

HEADERS = {
    "retailrocket": (
        "timestamp,visitorid,event,itemid,transactionid",
        {"user": "visitorid", "item": "itemid", "time": "timestamp", "type": "event"},
    ),
    "movielens": (
        "userId,movieId,rating,timestamp",
        {"user": "userId", "item": "movieId", "value": "rating", "time": "timestamp"},
    ),
    "recbole": (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        {
            "user": "user_id:token",
            "item": "item_id:token",
            "value": "rating:float",
            "time": "timestamp:float",
        },
    ),
    "amazon 2014": (
        "reviewerID,asin,reviewerName,helpful,reviewText,overall,summary,unixReviewTime,reviewTime",
        {"user": "reviewerID", "item": "asin", "value": "overall", "time": "unixReviewTime"},
    ),
    "a shop of another language's columns among them": (
        "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session",
        {
            "user": "user_id",
            "item": "product_id",
            "time": "event_time",
            "type": "event_type",
        },
    ),
    "invoices": (
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country",
        {"user": "CustomerID", "item": "StockCode", "time": "InvoiceDate"},
    ),
    "book crossing": (
        "User-ID;ISBN;Book-Rating",
        {"user": "User-ID", "item": "ISBN", "value": "Book-Rating"},
    ),
    "analytics": (
        "user_pseudo_id,event_timestamp,event_name,item_id",
        {
            "user": "user_pseudo_id",
            "item": "item_id",
            "time": "event_timestamp",
            "type": "event_name",
        },
    ),
    "sessions alone": (
        "SessionId,Timestamp,ItemId",
        {"user": "SessionId", "item": "ItemId", "time": "Timestamp"},
    ),
    "a session beside its user": (
        "session_id,user_id,item_id",
        {"user": "user_id", "item": "item_id"},
    ),
    "a name beside its id": ("user,user_id,item,item_id", {"user": "user_id", "item": "item_id"}),
    "spaces, quotes and a mark of the byte order": (
        '\ufeff"Customer Id", Product Number ,Created At',
        {"user": '\ufeff"Customer Id"', "item": " Product Number ", "time": "Created At"},
    ),
    "a shop's days": (
        "t_dat,customer_id,article_id,price,sales_channel_id",
        {"user": "customer_id", "item": "article_id", "time": "t_dat"},
    ),
    "reviews of businesses": (
        "review_id,user_id,business_id,stars,useful,text,date",
        {"user": "user_id", "item": "business_id", "value": "stars", "time": "date"},
    ),
    "hashed sessions": (
        "session_id_hash,event_type,product_action,product_sku_hash,server_timestamp_epoch_ms",
        {
            "user": "session_id_hash",
            "item": "product_sku_hash",
            "type": "event_type",
            "time": "server_timestamp_epoch_ms",
        },
    ),
    "an article beside its text": (
        "user_id,content_id,content,page",
        {"user": "user_id", "item": "content_id"},
    ),
    "events of an analytics tool": (
        "distinct_id,event,properties.product_id,timestamp",
        {
            "user": "distinct_id",
            "item": "properties.product_id",
            "type": "event",
            "time": "timestamp",
        },
    ),
    "a query's prefixes": (
        "e.user_id,e.product_id,e.ts",
        {"user": "e.user_id", "item": "e.product_id", "time": "e.ts"},
    ),
}


@pytest.mark.parametrize(("header", "expected"), HEADERS.values(), ids=HEADERS)
def test_usual_names_are_recognised(header, expected):
    separator = next(mark for mark in "\t;," if mark in header)
    assert recognise_columns(header.split(separator), "events.csv") == expected


@pytest.mark.parametrize(
    "names",
    [
        ["user_id", "customer_id", "item_id"],
        ["user_id", "userId", "item_id"],
        ["visitor", "member", "item_id"],
    ],
)
def test_two_columns_that_could_be_the_user_are_an_error_that_says_what_to_write(names):
    with pytest.raises(DataSetError, match=r"could each be the user.*--columns '\{user: ") as error:
        recognise_columns(names, "events.csv")
    assert error.value.target == "columns.user"
    assert all(name in error.value.message for name in names[:2])
    assert recognise_columns(names, "events.csv", given={"user": names[0]})["user"] == names[0]


def test_a_missing_column_lists_those_there_are():
    with pytest.raises(
        DataSetError,
        match=r"events.csv: .* item; the columns are user_id, thing and when; .* '\{item: thing\}'",
    ):
        recognise_columns(["user_id", "thing", "when"], "events.csv")


def test_a_category_or_an_events_own_id_is_neither_item_nor_type():
    names = ["user_id", "category_id", "event_id", "id"]
    with pytest.raises(DataSetError, match="no column has a usual name for the item"):
        recognise_columns(names, "events.csv")
    found = recognise_columns([*names, "sku"], "events.csv")
    assert found == {"user": "user_id", "item": "sku"}


def test_a_given_column_may_be_a_place_another_spelling_or_none():
    names = ["a", "b", "Event Time", "rating"]
    given = {"user": 1, "item": "B", "time": "event_time", "value": None}
    found = recognise_columns(names, "events.csv", given=given)
    assert found == {"user": "a", "item": "b", "time": "Event Time"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"user": "usr_id"},
            "there is no column 'usr_id', which --columns user names; .*'user_id'",
        ),
        ({"user": 9}, "there is no column 9"),
        ({"buyer": "user_id"}, "names 'buyer', which is no kind of column; there are user, item"),
        ({"item": None}, "a item cannot be left out"),
    ],
)
def test_a_wrong_option_is_one_line(given, message):
    with pytest.raises(DataSetError, match=message):
        recognise_columns(["user_id", "item_id"], "events.csv", given=given)


def test_a_header_that_names_a_column_twice_is_an_error():
    with pytest.raises(DataSetError, match="two columns are called 'user_id'"):
        recognise_columns(["user_id", "item_id", "user_id"], "events.csv")


def test_items_and_users_have_their_own_columns():
    names = ["id", "title", "price", "available_from", "availableUntil"]
    assert recognise_columns(names, "items.csv", wanted=ITEM_COLUMNS) == {
        "item": "id",
        "available_from": "available_from",
        "available_until": "availableUntil",
    }
    assert recognise_columns(["id", "movieId", "title"], "m.csv", wanted=ITEM_COLUMNS) == {
        "item": "movieId"
    }
    assert recognise_columns(["id", "age"], "u.csv", wanted=USER_COLUMNS) == {"user": "id"}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([["user_id", "item_id"], ["u1", "i1"]], True),
        ([["\ufeffuser", "item"], ["1", "2"]], True),
        ([["196", "242", "3", "881250949"], ["186", "302", "3", "891717742"]], False),
        ([["1", "2268318", "2520377", "pv", "1511544070"]], False),
        ([["user_000001", "2009-05-04T23:08:57Z", "x"]], False),
        ([["u1", "11/13/2019 8:36:57 AM"]], False),
        ([["user", "user"]], False),
        ([["user", ""]], False),
        ([["", "user", "item"], ["0", "u", "i"]], True),
        ([["user", "item", ""], ["u", "i", ""]], True),
        ([], False),
    ],
)
def test_a_header_is_told_from_data_by_looking(rows, expected):
    assert looks_like_header(rows) is expected
