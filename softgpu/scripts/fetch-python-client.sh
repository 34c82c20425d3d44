#!/bin/sh
# Makes a Python environment with NVIDIA's cuda-core and cuda-bindings in the data folder, and puts cuda-core's example
# vector_add.py there, which is in no package: tests run the driver under them. Prints the folder.
set -eu
to=${1:-${XDG_DATA_HOME:-$HOME/.local/share}/mngc/cuda-python}
example=https://raw.githubusercontent.com/NVIDIA/cuda-python/01db773955806205e65e0553c8d22192419cc440/cuda_core/examples/vector_add.py
hash=2f93e4ecbcd80b7ed34e33cb7de22ae5cef24844a35a1fd8dff9f1417a31dfee
if [ ! -e "$to/done" ]; then
    python3 -m venv "$to"
    "$to/bin/pip" install --quiet --disable-pip-version-check --retries 2 --timeout 20 \
        cuda-core==1.2.2 cuda-bindings==13.5.0 numpy >&2
    touch "$to/done"
fi
if [ ! -e "$to/vector_add.py" ]; then
    if curl --silent --show-error --fail --max-time 20 --output "$to/fetched.py" "$example" >&2 &&
        echo "$hash  $to/fetched.py" | sha256sum --check --quiet >&2; then
        mv "$to/fetched.py" "$to/vector_add.py"
    else
        echo "vector_add.py could not be fetched: the test that runs it will be skipped" >&2
    fi
fi
echo "$to"
