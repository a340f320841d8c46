"""Order, batch sampler, items, workers, loader."""
