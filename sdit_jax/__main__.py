"""Runs `python -m sdit_jax VERB ...` as `sdit VERB ...`."""

from sdit_jax.commands.command_line import main

if __name__ == "__main__":
    main()
