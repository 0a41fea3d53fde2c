"""The four stages of the core: train, sample, evaluate, sweep."""
