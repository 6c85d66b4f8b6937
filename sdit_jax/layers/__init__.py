"""Floor 1, layers: flax linen modules with parameters, each one idea of the network."""
