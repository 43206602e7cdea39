"""Training from files: what the command `everlong train` and the first start run."""
