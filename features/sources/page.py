"""docs/columns.md: the names under which columns and kinds are known."""

from collections.abc import Sequence

from features.sources.columns import EVENTS, PRODUCTS, Synonyms
from features.sources.ids import MISSING
from features.sources.kinds import NAMES, SYNONYMS
from features.sources.refusals import Reason


def columns_page() -> str:
    """The page, made from the tables that the code reads files by."""
    return "\n".join(
        [
            "# Names of columns",
            "",
            "Made by `features.sources.page`. [data.md](data.md) says how files are read. Case, spaces, `_`, `-` and `.` do not matter:",
            "`User ID`, `userId` and `user_id` are one name. A name in an earlier cell of a line wins over later ones; two columns",
            "of one cell are ambiguous, and `--columns` (of products `--product-columns`) chooses.",
            "",
            "## Events",
            "",
            *_names(EVENTS),
            "",
            "## Products",
            "",
            *_names(PRODUCTS),
            "",
            "Every other column of a table of products is an attribute.",
            "",
            "## Kinds",
            "",
            "| Kind | Also |",
            "|---|---|",
            *(f"| `{name}` | {_list(SYNONYMS[name])} |" for name in NAMES),
            "",
            "## Missing values",
            "",
            f"In columns of ids, whatever their case: null, NaN, empty, {_list([word for word in MISSING if word])}.",
            "",
            "## Reasons for refused rows",
            "",
            f"{_list(list(Reason))}.",
            "",
        ]
    )


def _names(synonyms: Synonyms) -> list[str]:
    most = max(len(groups) for groups in synonyms.values())
    head = ["Column", "First", *["then"] * (most - 1)]
    rows = [[f"`{role}`", *map(_list, groups), *[""] * (most - len(groups))] for role, groups in synonyms.items()]
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


def _list(words: Sequence[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)
