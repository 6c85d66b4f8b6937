#!/usr/bin/env bash
# A fresh machine to a tested one: environment, then the test suite; -m "" adds the slow tests. Arguments go to pytest:
#     ./launch/test.sh -k wkv
set -euo pipefail
EXTRAS="${EXTRAS:-test}" . "$(dirname "$0")/environment.sh"
python -m pytest "$@"
