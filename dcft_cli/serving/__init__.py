"""Many adapters of one base model in memory, chosen for each call or for each row of a batch."""
