"""Predict with a trained adapter: in Python, and for files of any size."""
