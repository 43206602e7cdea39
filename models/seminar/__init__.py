"""SEMINAR (papers.md 2): one search unit, pretrained over (query, item) pairs, and the retrieval parts on top of it."""
