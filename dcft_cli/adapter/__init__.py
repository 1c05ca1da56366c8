"""The method: DCFT adapters in any torch model. Usable alone; knows no recipe and no task."""
