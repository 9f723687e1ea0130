#!/bin/sh
# Prints the first Python 3.11 or 3.12 that can make a virtual environment; PYTHON names one explicitly.
usable() {
    command -v "$1" >/dev/null 2>&1 &&
        "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' >/dev/null 2>&1
}

for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3; do
    if usable "$candidate"; then
        command -v "$candidate"
        exit 0
    fi
    if [ -n "${PYTHON:-}" ]; then
        break
    fi
done

{
    if [ -n "${PYTHON:-}" ]; then
        echo "PYTHON=$PYTHON is not a usable Python 3.11 or 3.12 (with the venv and ensurepip modules)."
    else
        echo "rayward needs Python 3.11 or 3.12 with the venv module; none of python3.11, python3.12, python3 is one."
    fi
    echo "  Debian/Ubuntu:  sudo apt-get install python3.11 python3.11-venv   (or python3.12 python3.12-venv)"
    echo "  anywhere else:  pyenv install 3.11   or   uv python install 3.11"
    echo "  then:           make setup PYTHON=/path/to/python3.11"
} >&2
exit 1
