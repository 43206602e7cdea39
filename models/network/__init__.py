"""All modules with weights: ULIM's towers and category generator, SEMINAR's search unit and search."""
