"""What happens to events, refresh requests and items: each pipeline reads rows, computes and writes, without Kafka."""
