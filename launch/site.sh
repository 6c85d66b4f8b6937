#!/usr/bin/env bash
# Builds the documentation into site/, which runs the tutorials, and checks every link inside of it. PORT is that of a local server.
set -euo pipefail
EXTRAS="${EXTRAS:-docs}" . "$(dirname "$0")/environment.sh"
rm -rf .cache/mkdocs-jupyter # Tutorials are run again: the cache does not see changes of the package.
written="docs/tutorials/runs docs/tutorials/pictures docs/tutorials/curves.png docs/tutorials/scaling.png" # By the tutorials.
server=
trap 'rm -rf $written; [ -z "$server" ] || kill "$server"' EXIT
rm -rf $written
# The tutorials compile some programs more than once.
export JAX_COMPILATION_CACHE_DIR="$PWD/.cache/compiled" JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0.1
export NO_MKDOCS_2_WARNING=1 PYTHONWARNINGS="ignore:IProgress not found" # Progress is shown as text.
mkdocs build --strict --quiet
python -m http.server "${PORT:-8765}" --bind 127.0.0.1 --directory site > /dev/null 2>&1 &
server=$!
sleep 2
linkchecker --no-status --no-warnings "http://127.0.0.1:${PORT:-8765}/"
