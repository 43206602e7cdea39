"""What runs from files and not from Kafka: training, evaluation, ablations, and the pages they write."""
