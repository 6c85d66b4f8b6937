"""Floor 4, sampling: trained weights become images."""
