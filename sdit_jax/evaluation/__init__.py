"""Floor 5, evaluation: features, distances, energy, reports; every number with its protocol."""
