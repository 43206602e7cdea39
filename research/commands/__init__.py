"""Commands of `everlong` that run studies."""
