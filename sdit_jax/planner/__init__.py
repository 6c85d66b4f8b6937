"""Plans of a training step on accelerators that are not at hand: its memory, FLOPs, communication and time.

`analysis.chips` holds what vendors state; `memory`, `arithmetic` and `collectives` count what one device does in a step;
`prediction` combines them. The step is traced, not compiled or run, so that plans for thousands of chips are made on a laptop.
"""
