"""From rows to candidates: encoding, networks, item codes, the index, serving, evaluation and training. No streams, no store."""
