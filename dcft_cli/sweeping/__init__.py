"""Sweeps: many runs of one recipe, shared by processes, each trained exactly once."""
