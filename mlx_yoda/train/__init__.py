"""Training: loss, step, optimizer, loop, checkpoints."""
