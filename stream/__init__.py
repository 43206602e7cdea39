"""From topics to rows and candidates: Kafka, the pipelines, generations of item codes, what serves, and the workers."""
