"""Figures of runs, for files."""
