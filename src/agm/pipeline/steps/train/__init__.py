"""Train: one loop for every method, fusion and mono-modal concept."""
