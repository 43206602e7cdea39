"""Everything that knows Feast: definitions generated from the table of features, and the unpacking of rows for Feast clients."""
