"""Training from files, for `everlong train` and the first start."""
