"""Checks a run folder or a file of weights.

    sdit verify runs/digits
    sdit verify pretrained:mnist

Compares checkpoints with the hashes that were kept when they were written, and reads configuration, records and pictures.
Prints what is whole, what is damaged, and whether the run can be resumed, sampled and evaluated. Changes nothing. Exit code 1:
damage was found.
"""

import sys

from sdit_jax.sampling.verify import verify

ARGUMENT = "run folder or weights"


def main(place: str) -> None:
    found = verify(place)
    width = max(len(finding.part) for finding in found.findings)
    for finding in found.findings:
        print(f"{'ok' if finding.sound else 'DAMAGED':8}{finding.part:{width}}  {finding.found}")
    print(f"{place} {found.use}")
    if not found.sound:
        sys.exit(1)
