"""Codebooks of item codes: the topics that carry them, their readers, and the manager that refreshes them."""
