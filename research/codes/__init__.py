"""Product-quantised codes on a GPU, and a scan of all codes."""
