"""The last step of the cascade: candidates of all lists scored again, by one model that sees each of them and the history."""
