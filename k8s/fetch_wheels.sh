#!/usr/bin/env bash
# Fetches the wheels of the image, and the pip that installs them, into requirements/wheels,
# with whatever package index, proxy and certificates pip is configured for here. The build
# then takes them from there (Dockerfile) and asks no network for any of them.
#
#   k8s/fetch_wheels.sh
#
# PYTHON        must be of the version that the image has, 3.11 unless the base says otherwise
# REQUIREMENTS  what to fetch, with hashes: a file in requirements/  (serve.txt)
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-$(command -v python3.11 || command -v python3)}
requirements=requirements/${REQUIREMENTS:-serve.txt}
wheels=requirements/wheels

fetched=$("$python" --version && sha256sum "$requirements" requirements/pip.txt)
[ "$(cat "$wheels/.fetched" 2> /dev/null)" != "$fetched" ] || exit 0
rm -rf "$wheels"
mkdir -p "$wheels"
"$python" -m pip --quiet download --dest "$wheels" --only-binary=:all: --no-deps \
    --require-hashes --requirement "$requirements" --requirement requirements/pip.txt
printf '%s\n' "$fetched" > "$wheels/.fetched"
