"""Generations of item codes: what topic `codebooks` says, who follows it, and the keeper that refreshes them."""
