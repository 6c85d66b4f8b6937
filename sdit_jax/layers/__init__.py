"""Flax linen modules that networks are built from, one idea per file."""
