"""The roles of a table's columns, by names and synonyms, compared without case, spaces, `_`, `-` and `.`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from features.errors import SourceError


class Role(StrEnum):
    """Roles of columns in a table of events."""

    USER = "user"
    ITEM = "item"
    TIME = "time"
    KIND = "kind"
    CATEGORY = "category"
    TEXT = "text"
    QUERY = "query_id"
    ORDER = "order_id"
    SESSION = "session_id"
    QUANTITY = "quantity"
    PRICE = "price"
    POSITION = "position"


class Product(StrEnum):
    """Roles of columns in a table of products; every other column is an attribute."""

    ITEM = "item"
    CATEGORY = "category"
    TITLE = "title"
    PRICE = "price"
    AVAILABLE = "available"
    IMAGE = "image_embedding"
    WORDS = "text_embedding"


Synonyms = Mapping[StrEnum, Sequence[Sequence[str]]]

# Groups of names per role: a name in an earlier group takes precedence; two names of one group are ambiguous.
EVENTS: Synonyms = {
    Role.USER: (
        ("user",),
        (
            "user_id", "visitor_id", "customer_id", "customer", "household_id", "household", "household_key", "member_id", "shopper_id",
            "buyer_id", "reviewer_id",
        ),
        ("client_id", "user_pseudo_id", "anonymous_id"),
    ),
    Role.ITEM: (
        ("item",),
        ("item_id", "product_id", "article_id", "movie_id", "parent_asin", "goods_id", "content_id"),
        ("asin", "sku", "stock_code", "product", "article", "object_id"),
    ),
    Role.TIME: (
        ("ts", "time"),
        ("timestamp", "event_time", "event_timestamp", "event_ts", "time_stamp", "datetime", "unix_time", "created_at", "occurred_at"),
        ("date", "event_date", "day", "t_dat", "order_date", "purchase_date", "invoice_date"),
    ),
    Role.KIND: (
        ("kind",),
        (
            "event", "event_type", "event_name", "action", "action_name", "action_type", "behavior_type", "behaviour_type", "behavior",
            "behaviour",
        ),
        ("type", "interaction", "interaction_type"),
    ),
    Role.CATEGORY: (
        ("category",),
        ("category_id", "product_category", "item category", "product_category_id"),
        ("category_code", "category_name"),
    ),
    Role.TEXT: (
        ("text",),
        ("user_query", "search_term", "search_query", "search_text", "query text", "keywords", "search_phrase"),
        ("query",),
    ),
    Role.QUERY: (("query_id", "search_id"),),
    Role.ORDER: (("order_id", "order", "transaction_id", "invoice_no", "invoice", "basket_id"),),
    Role.SESSION: (("session_id", "user_session", "session", "visit_id"),),
    Role.QUANTITY: (("quantity", "qty"),),
    Role.PRICE: (("price", "unit_price", "item price"),),
    Role.POSITION: (("position", "item_position"),),
}  # fmt: skip
PRODUCTS: Synonyms = {
    Product.ITEM: (*EVENTS[Role.ITEM][:2], (*EVENTS[Role.ITEM][2], "id")),
    Product.CATEGORY: (
        ("category",),
        ("product_category", "category_id", "item category"),
        ("category_code", "category_name", "main_category"),
    ),
    Product.TITLE: (("title",), ("item_name", "product_name", "product_title", "item title", "prod_name"), ("name",)),
    Product.PRICE: (("price",), ("unit_price", "item price", "sale_price", "list_price")),
    Product.AVAILABLE: (("available",), ("in_stock", "is_available", "is_in_stock", "availability", "stock_status"), ("stock",)),
    Product.IMAGE: (("image_embedding",), ("image_vector",)),
    Product.WORDS: (("text_embedding",), ("text_vector", "title_embedding")),
}


class Assigned(NamedTuple):
    """The column of each role, and the columns that are not used, in the order of the file."""

    used: Mapping[StrEnum, str]
    rest: Sequence[str]


def squash(name: str) -> str:
    """The spelling in which column names are compared."""
    return re.sub(r"[^a-z0-9]+", "", name.lower())


def parse_columns(given: str, roles: type[StrEnum] = Role) -> dict[str, str]:
    """The column names chosen by `--columns user=customer_no,item=sku`, by role.

    Raises:
        SourceError: a part is malformed, or names an unknown role, or one twice.
    """
    chosen: dict[str, str] = {}
    known = [str(role) for role in roles]
    for part in (part for part in given.split(",") if part.strip()):
        role, equals, column = (piece.strip() for piece in part.partition("="))
        role = {"ts": "time"}.get(role, role)
        if not equals or not column or role not in known:
            raise SourceError(
                f"{part.strip()!r} chooses nothing", f"write ROLE=COLUMN, as in user=customer_no; roles are {', '.join(known)}"
            )
        if role in chosen:
            raise SourceError(f"{role} is chosen twice ({chosen[role]}, {column})", "choose one column")
        chosen[role] = column
    return chosen


def assign(what: str, names: Sequence[str], synonyms: Synonyms, chosen: Mapping[str, str], option: str = "--columns") -> Assigned:
    """The columns of a table by role. `what` names the table in messages; `chosen` overrides the synonyms.

    Raises:
        SourceError: a chosen column is missing or chosen for two roles, or a role is ambiguous.
    """
    used: dict[StrEnum, str] = {role: _chosen(what, names, role, chosen[role], option) for role in synonyms if role in chosen}
    free = [name for name in names if name not in used.values()]
    for column in used.values():
        if len(roles := [role for role, name in used.items() if name == column]) > 1:
            raise SourceError(f"{option} chooses column {column!r} for {' and '.join(roles)}", "choose a column of its own for each")
    for role, groups in synonyms.items():
        if role in used:
            continue
        for group in groups:
            wanted = [squash(name) for name in group]
            found = [name for name in free if squash(name) in wanted]
            if len(found) > 1:
                raise SourceError(
                    f"{what} has several columns for {role} ({', '.join(found)})", f"choose one, as in {option} {role}={found[0]}"
                )
            if found:
                used[role] = found[0]
                break
    if squash(used.get(Role.TEXT, "")) == "text" and "rating" in {squash(name) for name in names}:
        del used[Role.TEXT]  # the text of a review is neither a search nor the item's title
    taken = set(used.values())
    return Assigned(used, [name for name in names if name not in taken])


def listed(names: Sequence[str]) -> str:
    """The first column names, for a message; a column without a name is shown as ''."""
    return ", ".join(name or "''" for name in names[:30]) + (f", ... ({len(names) - 30:,} more)" if len(names) > 30 else "")


def missing(what: str, needed: Iterable[StrEnum], names: Sequence[str], synonyms: Synonyms, option: str = "--columns") -> SourceError:
    """The error for missing columns of the roles `needed`, with suggestions of nested names that fit."""
    lacking = list(needed)
    example = {role: _near(names, synonyms[role]) for role in lacking}
    hint = ",".join(f"{role}={example[role] or 'COLUMN'}" for role in lacking)
    return SourceError(
        f"{what} has no column for {', '.join(lacking)}; its columns are {listed(names)}", f"choose them, as in {option} {hint}"
    )


def _near(names: Sequence[str], groups: Sequence[Sequence[str]]) -> str:
    """A nested name (`properties.product_id`) with a fitting last part."""
    for group in groups:
        wanted = {squash(name) for name in group}
        for name in names:
            if "." in name and squash(name.rpartition(".")[2]) in wanted:
                return name
    return ""


def _chosen(what: str, names: Sequence[str], role: str, column: str, option: str) -> str:
    if column in names:
        return column
    near = [name for name in names if squash(name) == squash(column)]
    if len(near) == 1:
        return near[0]
    raise SourceError(f"{what} has no column {column!r} ({option} {role}={column}); its columns are {listed(names)}")
