"""Generations of item codes: what topic `codebooks` says, who follows it, and the manager that refreshes them."""
