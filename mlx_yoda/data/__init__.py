"""From rows on disk or on the Hub to batches of token ids with a loss mask, in NumPy only."""
