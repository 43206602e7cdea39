"""Which categories and items have an embedding row. Everything else has the row of the unknown; nothing raises."""

from collections.abc import Iterable, Sequence

PAD = 0
UNKNOWN = 1
FIRST = 2  # row of the first known id


class Vocabulary:
    """Ids to rows: 0 pads, 1 is the unknown, known ids follow in the order given."""

    def __init__(self, categories: Sequence[str], items: Sequence[str]) -> None:
        self.categories = tuple(categories)
        self.items = tuple(items)
        self._category_rows = {category: row for row, category in enumerate(self.categories, FIRST)}
        self._item_rows = {item: row for row, item in enumerate(self.items, FIRST)}

    @classmethod
    def of(cls, categories: Iterable[str], items: Iterable[str]) -> "Vocabulary":
        """The vocabulary of distinct ids, in sorted order: the same for the same sets."""
        return cls(sorted(set(categories)), sorted(set(items)))

    def grown(self, categories: Iterable[str], items: Iterable[str]) -> "Vocabulary":
        """These ids in their rows, then the new ones of the given in sorted order."""
        new_categories, new_items = set(categories) - set(self.categories), set(items) - set(self.items)
        return Vocabulary((*self.categories, *sorted(new_categories)), (*self.items, *sorted(new_items)))

    @property
    def category_rows(self) -> int:
        """Rows of a table of categories, those of padding and the unknown among them."""
        return len(self.categories) + FIRST

    @property
    def item_rows(self) -> int:
        """Rows of a table of items, those of padding and the unknown among them."""
        return len(self.items) + FIRST

    def category(self, category: str) -> int:
        """Row of a category, UNKNOWN where it has none."""
        return self._category_rows.get(category, UNKNOWN)

    def item(self, item: str) -> int:
        """Row of an item, UNKNOWN where it has none."""
        return self._item_rows.get(item, UNKNOWN)

    def category_name(self, row: int) -> str:
        """The category of a row of FIRST or above."""
        return self.categories[row - FIRST]
