"""Kafka as the pipelines see it: connections, topics, messages and their headers, consumers, the producer, progress."""
