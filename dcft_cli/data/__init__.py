"""Rows in: files, the Hub, labels, held-out parts, and the cache of their tokens."""
