"""Whole jobs: train, evaluate, merge, inspect. Here recipe, task, model and adapter meet."""
