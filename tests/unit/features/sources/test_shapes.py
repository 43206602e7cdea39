"""Files as ten public systems write them: each is understood, or refused with a sentence that names the remedy."""

import gzip
import json
from pathlib import Path

import pytest

from features import sources
from features.errors import SourceError
from features.events import Click, Order, OrderLine, Query
from features.sources.columns import parse_columns

RETAILROCKET = (
    "timestamp,visitorid,event,itemid,transactionid\n"
    "1435625536188,25225,view,210,\n1435625536190,7,addtocart,84,\n1435625536191,7,transaction,84,4013\n"
)
REES46 = (
    "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
    "2019-11-09 11:48:18 UTC,purchase,1000005,2053013555631882660,apparel.shoes,bosch,-7.94,512000014,s1\n"
    "2019-11-09 11:48:18 UTC,purchase,1000006,2053013555631882660,,bosch,12.50,512000014,s1\n"
    "2019-11-04 10:56:55 UTC,view,1000033,2053013555631882660,electronics,xiaomi,346.5,512000005,s2\n"
    "2019-11-04 10:56:56 UTC,remove_from_cart,1000033,2053013555631882660,electronics,xiaomi,346.5,512000005,s2\n"
)
AMAZON = [
    {
        "rating": 5.0,
        "title": "Great",
        "text": "Loved, it.",
        "images": [],
        "asin": "B1",
        "parent_asin": "B0",
        "user_id": "A",
        "timestamp": 1588687728923,
    },
    {
        "rating": 1.0,
        "title": "Bad",
        "text": "No",
        "images": [{"u": 1}],
        "asin": "B2",
        "parent_asin": "B9",
        "user_id": "C",
        "timestamp": 1588687728924,
    },
]
UBI_QUERY = {
    "query_id": "q1",
    "client_id": "c1",
    "user_query": "red shoes",
    "query": '{"match":{}}',
    "timestamp": "2026-09-21T14:13:20.040Z",
}
UBI_EVENT = {
    "action_name": "click", "query_id": "q1", "client_id": "c1", "timestamp": "2026-09-21T14:13:25Z",
    "event_attributes": {"object": {"object_id": "7"}, "position": {"ordinal": 3}},
}  # fmt: skip


def _text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def _json(path: Path, rows: list[dict]) -> Path:
    return _text(path, "".join(json.dumps(row) + "\n" for row in rows))


def test_retailrocket(tmp_path: Path) -> None:
    view, cart, order = sources.read(_text(tmp_path / "events.csv", RETAILROCKET))
    assert (view.user_id, view.item_id, view.category_id, view.kind, view.ts) == ("25225", "210", "unknown", "click", 1435625536188)
    assert cart.kind == "cart"
    assert (order.order_id, order.lines) == ("4013", [OrderLine(item_id="84", category_id="unknown")])


@pytest.mark.fault("A file of events with an unknown kind, such as remove_from_cart", "Its rows are refused and counted by kind")
def test_rees46(tmp_path: Path) -> None:
    reading = sources.Reading(_text(tmp_path / "2019-Nov.csv", REES46))
    view, order = reading.events()
    assert (view.category_id, view.session_id, view.ts) == ("2053013555631882660", "s2", 1572865015000)
    assert [(line.item_id, line.price) for line in order.lines] == [("1000005", 0.0), ("1000006", 12.5)]
    assert reading.refusals.sentence() == "unknown_kind 1 (remove_from_cart 1)"
    assert reading.refusals.first[0].row == 5
    assert reading.table is not None
    assert list(reading.table.columns.rest) == ["category_code", "brand"]


def test_amazon_reviews_are_clicks_on_the_parent_and_their_text_is_no_title(tmp_path: Path) -> None:
    reading = sources.Reading(_json(tmp_path / "Books.jsonl", AMAZON))
    assert [(event.user_id, event.item_id) for event in reading.events()] == [("A", "B0"), ("C", "B9")]
    assert [item.title for item in reading.touched()] == ["", ""]
    assert reading.notes == ["no column for kind: every row counts as click (--kind says otherwise)"]


def test_instacart_has_no_time_and_says_so(tmp_path: Path) -> None:
    path = _text(
        tmp_path / "orders.csv", "order_id,user_id,eval_set,order_number,order_dow,order_hour_of_day,product_id\n1,2,prior,3,4,5,6\n"
    )
    with pytest.raises(SourceError, match=r"no column for time; its columns are order_id, .*--columns time=COLUMN"):
        sources.Reading(path)


def test_movielens(tmp_path: Path) -> None:
    path = _text(tmp_path / "ratings.csv", "userId,movieId,rating,timestamp\n1,30,4.5,1537953942\n2,59,5.0,1537953943\n")
    assert [(event.user_id, event.item_id, event.ts) for event in sources.read(path)] == [
        ("1", "30", 1537953942000),
        ("2", "59", 1537953943000),
    ]
    movies = _text(tmp_path / "movies.csv", 'movieId,title,genres\n30,"Story, The (1951)",Adventure|Drama\n')
    reading = sources.Reading(path, products=sources.Products(movies))
    [story] = reading.described()
    assert (story.title, story.attributes, story.category_id) == ("Story, The (1951)", {"genres": "Adventure|Drama"}, "unknown")


def test_otto_is_refused_until_it_is_one_event_a_line(tmp_path: Path) -> None:
    nested = _json(tmp_path / "train.jsonl", [{"session": 1, "events": [{"aid": 5, "ts": 1659304800025, "type": "clicks"}]}])
    with pytest.raises(SourceError, match=r"no column for user, item, time; its columns are session, events"):
        sources.Reading(nested)
    flat = _json(tmp_path / "flat.jsonl", [{"session": 1, "aid": 5, "ts": 1659304800025, "type": "carts"}])
    [event] = sources.Reading(flat, sources.How(parse_columns("user=session,item=aid"))).events()
    assert event == Click(event_id=event.event_id, user_id="1", item_id="5", category_id="unknown", ts=1659304800025, kind="cart")


def test_h_and_m_keeps_leading_zeros(tmp_path: Path) -> None:
    path = _text(tmp_path / "transactions.csv", "t_dat,customer_id,article_id,price,sales_channel_id\n2018-09-20,ab,0663713001,0.0508,2\n")
    [event] = sources.Reading(path, sources.How(kind="order")).events()
    assert isinstance(event, Order)
    assert (event.lines, event.ts) == ([OrderLine(item_id="0663713001", category_id="unknown", price=0.0508)], 1537401600000)


def test_ubi_a_click_names_its_query(tmp_path: Path) -> None:
    [query] = sources.read(_json(tmp_path / "queries.ndjson", [UBI_QUERY]))
    assert query == Query(event_id=query.event_id, user_id="c1", query_id="q1", text="red shoes", ts=1790000000040)
    path = _json(tmp_path / "events.ndjson", [UBI_EVENT])
    with pytest.raises(SourceError, match=r"no column for item.*--columns item=event_attributes\.object\.object_id"):
        sources.Reading(path)
    how = sources.How(parse_columns("item=event_attributes.object.object_id,position=event_attributes.position.ordinal"))
    [click] = sources.Reading(path, how).events()
    assert (click.query_id, click.item_id, click.position) == ("q1", "7", 3)


def test_ga4_names_its_lists_and_not_set_is_missing(tmp_path: Path) -> None:
    event = {"event_name": "view_item", "event_date": "20260921", "event_timestamp": 1790000000000123, "user_pseudo_id": "u"}
    with pytest.raises(SourceError, match=r"no column for item; its columns are .*items"):
        sources.Reading(_json(tmp_path / "ga4.json", [event | {"items": [{"item_id": "1"}]}]))
    rows = [event | {"item_id": "1", "item_category": "(not set)"}, event | {"item_id": "(not set)", "item_category": "Apparel"}]
    reading = sources.Reading(_json(tmp_path / "flat.json", rows))
    [click] = reading.events()
    assert (click.item_id, click.category_id, click.ts) == ("1", "unknown", 1790000000000)
    assert reading.refusals.counts == {"missing_item": 1}


def test_segment_by_the_names_of_its_properties(tmp_path: Path) -> None:
    row = {"type": "track", "event": "Product Viewed", "anonymousId": "a0", "userId": "u0", "timestamp": "2026-09-21T14:13:20Z",
           "properties": {"product_id": "0", "category": "Games"}}  # fmt: skip
    path = _json(tmp_path / "segment.jsonl", [row, row | {"userId": None}])
    with pytest.raises(SourceError, match=r"--columns item=properties\.product_id"):
        sources.Reading(path)
    reading = sources.Reading(path, sources.How(parse_columns("item=properties.product_id,category=properties.category")))
    [click] = reading.events()
    assert (click.user_id, click.item_id, click.category_id) == ("u0", "0", "Games")
    assert reading.refusals.counts == {"missing_user": 1}


@pytest.mark.fault(
    "A CSV file with a header line, quotes, a BOM, CRLF or gzip compression, under any name", "Its columns are found by name"
)
@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_delimited_text(tmp_path: Path, delimiter: str, ends: str) -> None:
    lines = [
        "User ID|Item|Time|Event Type|Category|Comment",
        '7|"say ""hi"", you"|2026-09-21 10:00|Add to cart|a|',
        '8|y|2026-09-21 10:01|view|b|"two |',
        'lines"',
        "9|x|2026-09-21 10:02|view|c|fine",
    ]
    text = "\ufeff" + ends.join(line.replace("|", delimiter) for line in lines)
    (tmp_path / "odd.txt").write_bytes(gzip.compress(text.encode()))
    events = list(sources.read(tmp_path / "odd.txt"))
    assert [event.item_id for event in events if isinstance(event, Click)] == ['say "hi", you', "y", "x"]
    assert [event.kind for event in events if isinstance(event, Click)] == ["cart", "click", "click"]


@pytest.mark.fault("One JSON line of many with a list or an object where others have one value", "Its row is refused; the others are read")
@pytest.mark.parametrize("value", [["i1", "i2"], {"id": "i1"}, []])
def test_one_list_among_values_costs_its_row_only(tmp_path: Path, value: object) -> None:
    path = tmp_path / "lines.json"
    lines = [{"user_id": "u", "item_id": f"i{n}", "ts": 1_600_000_000_000 + n} for n in range(9)]
    path.write_text("\n".join(json.dumps(line | {"item_id": value} if n == 4 else line) for n, line in enumerate(lines)))
    reading = sources.Reading(path)
    assert [event.item_id for event in reading.events()] == [f"i{n}" for n in range(9) if n != 4]
    [refused] = reading.refusals.first
    assert refused.row == 5
