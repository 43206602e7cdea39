"""Slow and obvious versions that the fast ones must equal. For tests and benchmarks; not for serving."""
