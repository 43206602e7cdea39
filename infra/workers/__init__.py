"""The three workers: each wires a pipeline of stream/ to its topics, the store, metrics and health."""
