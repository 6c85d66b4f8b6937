"""Floor 3, data: labelled images from files, and batches of them as a function of (seed, step). Knows no model."""
