"""The method: DCFT adapters in any torch model. Usable by itself; knows no recipe and no task."""
