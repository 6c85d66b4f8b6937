"""A network's operations, energy and spikes."""
