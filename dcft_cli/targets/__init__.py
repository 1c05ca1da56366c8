"""Where in a model: its weights as matrices, their roles, and the ones that a recipe names."""
