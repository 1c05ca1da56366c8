"""Optional: faster ways to compute what the adapter layers and their model compute."""
