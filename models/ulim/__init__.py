"""ULIM as it is trained: towers, pointer-generator, the network of both, the loss."""
