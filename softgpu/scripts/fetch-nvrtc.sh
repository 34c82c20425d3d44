#!/bin/sh
# Fetches NVRTC 12.9 from PyPI into the data folder, verified by hash: the tests compile CUDA with it.
# Usage: fetch-nvrtc.sh [FOLDER]; the folder is printed. Nothing is fetched where it is already there.
set -eu
version=12.9.86
hash=210cf05005a447e29214e9ce50851e83fc5f4358df8b453155d5e1918094dcb4
to=${1:-${XDG_DATA_HOME:-$HOME/.local/share}/mngc/nvrtc-$version}
if [ -e "$to/libnvrtc.so.12" ] && [ -e "$to/libnvrtc-builtins.so.12.9" ]; then
    echo "$to"
    exit 0
fi
mkdir -p "$to"
tmp=$(mktemp -d "$to/fetch.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
echo "nvidia-cuda-nvrtc-cu12==$version --hash=sha256:$hash" >"$tmp/requirements.txt"
python3 -m pip download --quiet --disable-pip-version-check --retries 2 --timeout 20 --no-deps --require-hashes --only-binary :all: \
    --platform manylinux2010_x86_64 --dest "$tmp" -r "$tmp/requirements.txt" >&2
python3 - "$tmp" <<'PY'
import glob, os, sys, zipfile
tmp = sys.argv[1]
for wheel in glob.glob(tmp + "/*.whl"):
    with zipfile.ZipFile(wheel) as z:
        for name in z.namelist():
            base = os.path.basename(name)
            if base in ("libnvrtc.so.12", "libnvrtc-builtins.so.12.9"):
                with open(os.path.join(tmp, base), "wb") as f:
                    f.write(z.read(name))
PY
# Each file appears whole or not at all; the one that is looked for comes last.
mv -f "$tmp/libnvrtc-builtins.so.12.9" "$to/"
mv -f "$tmp/libnvrtc.so.12" "$to/"
echo "$to"
