"""Everything that knows Feast: its definitions, made from the table of features, and what its clients get."""
