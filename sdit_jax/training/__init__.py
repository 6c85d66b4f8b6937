"""Floor 6, training: the loop, and what it is made of."""
