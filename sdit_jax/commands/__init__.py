"""The commands: one module per verb, run by `command_line`."""
