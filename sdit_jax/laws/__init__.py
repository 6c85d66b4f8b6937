"""Floor 7, laws: from finished runs to how the loss falls with parameters, data, compute and spiking steps; their curves."""
