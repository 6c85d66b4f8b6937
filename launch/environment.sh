# Sourced by the other scripts: installs setup.cfg and constraints.txt into .venv, once. Needs Python 3.11 to 3.14 and PyPI.
#     EXTRAS=test,dev . launch/environment.sh

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
extras="${EXTRAS:-}"
stamp=".venv/.installed-${extras:-core}"
sum="$(cat setup.py setup.cfg pyproject.toml constraints.txt | cksum)"

fits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null
}

find_python() {
    local candidate found
    for candidate in "${PYTHON:-python3.12}" python3.12 python3.13 python3.14 python3.11 python3 python; do
        if fits "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    found="$(python3 --version 2>/dev/null || echo 'no Python 3')"
    echo "error: found $found; Python 3.11 to 3.14 is needed (set PYTHON=/path/to/python)" >&2
    return 2
}

if [ -z "$extras" ]; then done_by=.venv/.installed-*; else done_by="$stamp"; fi
if ! grep -qsxF "$sum" $done_by; then
    python="$(find_python)" || exit 2
    echo "environment: installing into .venv with $("$python" --version), about a minute and 1 GB"
    fits .venv/bin/python || "$python" -m venv --clear .venv || exit 1
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
        --editable ".${extras:+[$extras]}" || { echo "error: the packages could not be installed, see above" >&2; exit 1; }
    echo "$sum" > "$stamp"
fi
PATH="$PWD/.venv/bin:$PATH"
