#!/usr/bin/env bash
# Builds the source archive and from it the wheel, installs the wheel into an empty environment outside of the clone, and trains
# and samples there: with the Python of the environment and with every other supported one that is found.
#     PYTHONS="3.11 3.13" ./launch/wheel.sh
set -euo pipefail
EXTRAS="${EXTRAS:-test}" . "$(dirname "$0")/environment.sh"
place="$(mktemp -d)"
trap 'rm -rf "$place"' EXIT
cp constraints.txt "$place"
python -c 'import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])' "$place" > "$place/log" 2>&1 ||
    { cat "$place/log" >&2; exit 1; }
cd "$place"
python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation ./*.tar.gz

# The interpreter of a version on the PATH, or of pyenv, which hides those that are not selected.
find_version() {
    local candidate
    for candidate in python "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
        if [ "$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null)" = "$1" ]; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

for version in ${PYTHONS:-3.11 3.12 3.13 3.14}; do
    if ! interpreter="$(find_version "$version")"; then
        echo "wheel: Python $version is not installed, skipped"
        continue
    fi
    "$interpreter" -m venv empty
    empty/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt ./*.whl
    empty/bin/sdit train --config=digits:tiny --workdir=run
    empty/bin/sdit sample --workdir=run --out=samples --n=4 --steps=4
    empty/bin/sdit sample --workdir=pretrained:mnist --out=shipped --n=1 --steps=2
    rm -r empty run samples shipped
    echo "wheel: Python $version trains and samples"
done
