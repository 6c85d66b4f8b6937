#!/usr/bin/env bash
# Installs the environment and runs the tests; -m "" adds the slow ones. Arguments are those of pytest:
#     ./launch/test.sh -k wkv
set -euo pipefail
EXTRAS="${EXTRAS:-test}" . "$(dirname "$0")/environment.sh"
python -m pytest "$@"
