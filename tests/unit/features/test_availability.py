import pytest

from features.availability import is_available
from features.events import Item


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, True),
        ({"brand": "no"}, True),
        ({"available": "true"}, True),
        ({"available": ""}, True),
        ({"available": "maybe"}, True),
        ({"in_stock": "17"}, True),
        ({"in_stock": "0"}, False),
        ({"available": "false"}, False),
        ({"available": " No "}, False),
        ({"available": "FALSE", "in_stock": "3"}, False),
        ({"available": "yes", "in_stock": "no"}, False),
    ],
)
def test_an_item_is_available_unless_an_attribute_says_no(attributes, expected):
    assert is_available(Item(item_id="i", category_id="c", title="", ts=0, attributes=attributes)) is expected
