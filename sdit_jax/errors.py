"""The exceptions that the package raises for people: one line that names the field or file, what was found, what is allowed."""


class InputError(ValueError):
    """A user's mistake. Commands print it in one line and exit with 2."""


class NoSuchSplit(InputError):
    """A split that a data set does not have."""


class BrokenImage(InputError):
    """A picture that cannot be decoded, by its name."""


class TrainingFailed(RuntimeError):
    """Training cannot continue: the step, what was not finite, and the last good checkpoint. Commands exit with 1."""


class Stopped(Exception):
    """A run was asked to stop before its end and has saved its state. Commands exit with 75: rerun to resume."""
