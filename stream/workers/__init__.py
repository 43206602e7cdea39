"""The workers: each processes batches of its topics in six steps, in one method. infra constructs and observes them."""
