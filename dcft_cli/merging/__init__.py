"""`dcft merge`: an adapter merged into its base model, and the proof that both agree."""
