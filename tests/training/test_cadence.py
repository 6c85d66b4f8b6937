"""What is due after a step, as a table."""

import pytest

from sdit_jax.training.cadence import Cadence, Due

OFTEN = Cadence(total=12, log=2, save=5, draw=4, evaluate=6)
NEVER = Cadence(total=12, log=0, save=0, draw=0, evaluate=0)
# (cadence, step, a stop is asked for) -> what is due.
TABLE = [
    (OFTEN, 1, False, ""),
    (OFTEN, 2, False, "log"),
    (OFTEN, 4, False, "log draw"),
    (OFTEN, 5, False, "save"),
    (OFTEN, 6, False, "log save evaluate"),  # Saved first: an evaluation may take long.
    (OFTEN, 8, False, "log draw"),
    (OFTEN, 12, False, "log save draw evaluate"),
    (OFTEN, 1, True, "log save"),
    (OFTEN, 4, True, "log save"),
    (OFTEN, 6, True, "log save"),
    (OFTEN, 12, True, "log save"),
    (NEVER, 1, False, ""),
    (NEVER, 6, False, ""),
    (NEVER, 6, True, "log save"),
    (NEVER, 12, False, "log save draw"),
    (NEVER, 12, True, "log save"),
]


@pytest.mark.parametrize(("cadence", "step", "stopping", "expected"), TABLE)
def test_what_is_due(cadence, step, stopping, expected):
    found = cadence.due(step, stopping)
    assert [name for name in Due._fields if getattr(found, name)] == expected.split()
