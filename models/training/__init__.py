"""From a history to a bundle: examples, losses, pretraining, and the training loop."""
