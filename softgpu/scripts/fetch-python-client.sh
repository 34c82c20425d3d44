#!/bin/sh
# Makes a Python environment with NVIDIA's cuda-core and cuda-bindings in the data folder: a test runs the driver under
# them. Prints the interpreter.
set -eu
to=${1:-${XDG_DATA_HOME:-$HOME/.local/share}/mngc/cuda-python}
if [ ! -e "$to/done" ]; then
    python3 -m venv "$to"
    "$to/bin/pip" install --quiet --disable-pip-version-check cuda-core==1.2.2 cuda-bindings==13.5.0 numpy >&2
    touch "$to/done"
fi
echo "$to/bin/python"
