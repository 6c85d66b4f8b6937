"""Scaling laws: how the loss of finished runs falls with parameters, images, compute and spiking steps; their curves."""
