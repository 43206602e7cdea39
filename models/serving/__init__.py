"""From rows to candidates: the recommender, the cascade of searches, and the lists that are merged."""
