"""Recipes: their schema, and reading them from YAML files and `KEY=VALUE` overrides."""
