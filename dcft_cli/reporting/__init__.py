"""Comparison of finished runs: groups, statistics, published numbers, tables, figures, a page."""
