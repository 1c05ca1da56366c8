"""`dcft export`: write an adapter, or base + adapter, for other tools, and verify the result."""
