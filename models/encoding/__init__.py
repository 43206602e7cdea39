"""Rows and items to arrays: the only door from what is stored to numbers."""
