"""What each mechanism is worth: networks trained with one choice changed, and the page of their results."""
