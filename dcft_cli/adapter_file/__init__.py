"""The adapter file: its format, writing, reading, and loading into a model."""
