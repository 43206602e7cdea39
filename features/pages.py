"""Generates docs/features.md from the table of features."""

from features.codec import LAYOUT
from features.table import APPLIED, PACKED, VIEWS, Field, RowView, schema_hash


def features_page() -> str:
    """The text of docs/features.md."""
    lines = [
        "# Features",
        "",
        "Generated from `features/table.py` by `features.pages.features_page`.",
        f"Schema hash: `{schema_hash()}` (each bundle contains the hash it was trained with). Layout of packed rows: {LAYOUT}.",
        "",
        f"A view stores one packed row per entity: `NAME_{PACKED}` (bytes, MessagePack) and `NAME_{APPLIED}` (its log position).",
        "A Feast client reads the typed fields below through the on-demand view `NAME_arrays`, such as `user_category_arrays:item`.",
        "Lists are oldest first, candidates best first. An unknown entity gives empty lists, empty texts and 0.",
    ]
    for view in VIEWS:
        lines += _section(view)
    return "\n".join(lines) + "\n"


def _section(view: RowView) -> list[str]:
    return [
        "",
        f"## `{view.name}` ({', '.join(view.entities)})",
        "",
        f"{view.description} Written by the worker `{view.written_by}`.",
        "",
        "| Field | Type | Unit | Meaning |",
        "|---|---|---|---|",
        *(f"| `{field.name}` | {_type(field)} | {field.unit} | {field.description} |" for field in view.fields),
    ]


def _type(field: Field) -> str:
    return f"{field.type}, at most {field.length}" if field.length else field.type
