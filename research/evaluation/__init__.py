"""The command `everlong evaluate`: bundles and baselines on the same held-out events, and the page of their results."""
