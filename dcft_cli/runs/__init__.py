"""Whole jobs: train, evaluate, inspect. Recipe, task, model and adapter meet here."""
