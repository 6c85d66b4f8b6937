"""Floor 8, benchmarks: speed on the machine at hand, as numbers that carry how they were measured."""
