"""What is due after a step."""

import dataclasses
from typing import NamedTuple


class Due(NamedTuple):
    """What is due after a step, in the order in which it is done.

    A state is saved before it is evaluated, which may take long. If that is cut short, the rerun resumes from the saved step
    and first makes what is missing of its picture and evaluation.
    """

    log: bool
    save: bool
    draw: bool
    evaluate: bool


@dataclasses.dataclass(frozen=True)
class Cadence:
    """The number of steps of a run, and from one log line, checkpoint, picture or evaluation to the next (0: only at the end).

    Without an interval there is no evaluation at the end either. Checkpoints of multiples of `keep` are never deleted.
    """

    total: int
    log: int
    save: int
    draw: int
    evaluate: int
    keep: int = 0

    def due(self, step: int, stopping: bool = False) -> Due:
        """What is due after a step from 1 on. A run that is asked to stop logs and saves, and leaves the rest to the rerun."""
        last = step == self.total
        evaluate = self.evaluate > 0 and (last or _is_multiple(step, self.evaluate))
        return Due(
            log=last or stopping or _is_multiple(step, self.log),
            save=last or stopping or evaluate or _is_multiple(step, self.save),
            draw=not stopping and (last or _is_multiple(step, self.draw)),
            evaluate=not stopping and evaluate,
        )


def _is_multiple(step, interval):
    return interval > 0 and step % interval == 0
