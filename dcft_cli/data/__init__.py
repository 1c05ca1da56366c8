"""Data: rows from files and the Hub, their labels, held-out parts, and the token cache."""
