"""Floor 4, training: the loop, and what it is made of."""
