"""Floor 7, costs on paper: what a training step needs of a chip and of the links between chips, before either is rented.

`chips` holds what vendors state; `memory`, `arithmetic` and `collectives` count what one device does in a step; `prediction`
puts both together. Nothing is compiled or run: the step is traced, so plans for thousands of chips are made on a laptop.
"""
