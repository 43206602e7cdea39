"""The workers: what connects a pipeline to its topics."""
