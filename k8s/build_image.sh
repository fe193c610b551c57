#!/usr/bin/env bash
# Builds the image with buildah. The last line that it prints is the digest of the result.
#
#   k8s/build_image.sh [BASE_IMAGE]
#
# BASE_IMAGE    base of the image; "debian" (the default) is made here with mmdebstrap, so that
#               no registry is needed; anything else must be pullable or already here
# VARIANT       cpu or cuda                 (cpu)
# IMAGE         name of the result          (localhost/mammoseq:VERSION-VARIANT)
# REQUIREMENTS  what is installed in it: a file in requirements/  (serve.txt)
# PYTHON        see k8s/fetch_wheels.sh; PYTHON=none fetches nothing: the build asks the
#               index itself, PIP_INDEX_URL if that is set
# SOURCE        address of the source code, for a label; none unless set
# SOURCE_DATE_EPOCH  the time of everything in it  (that of the commit, or now)
#
# Needs buildah and, for the base "debian", mmdebstrap. Run as root.
set -euo pipefail
cd "$(dirname "$0")/.."

variant=${VARIANT:-cpu}
requirements=${REQUIREMENTS:-serve.txt}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
image=${IMAGE:-localhost/mammoseq:$version-$variant}
revision=$(git rev-parse HEAD 2> /dev/null || echo unknown)
[ -z "$(git status --porcelain 2> /dev/null)" ] || revision+=-modified
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2> /dev/null || date +%s)}
created=$(date --utc --date "@$epoch" +%Y-%m-%dT%H:%M:%SZ)

# Debian 12 with a Python and nothing to install more with.
debian() {
    local name=localhost/mammoseq-base:bookworm container
    if ! buildah inspect --type image "$name" > /dev/null 2>&1; then
        work=$(mktemp -d)
        trap 'rm -rf "$work"' EXIT
        SOURCE_DATE_EPOCH=$epoch mmdebstrap --quiet --variant=essential --include=python3,libstdc++6 \
            --dpkgopt='path-exclude=/usr/share/doc/*' \
            --dpkgopt='path-include=/usr/share/doc/*/copyright' \
            --dpkgopt='path-exclude=/usr/share/man/*' \
            --dpkgopt='path-exclude=/usr/share/locale/*' \
            bookworm "$work/base.tar"
        container=$(buildah from scratch)
        buildah add --quiet "$container" "$work/base.tar" / > /dev/null
        buildah commit --quiet --rm --timestamp "$epoch" "$container" "$name" > /dev/null
    fi
    printf '%s\n' "$name"
}

base=${1:-${BASE_IMAGE:-debian}}
if [ "$base" = debian ]; then
    base=$(debian)
elif ! buildah inspect --type image "$base" > /dev/null 2>&1; then
    buildah pull --quiet "$base" > /dev/null
fi

arguments=()
if [ "${PYTHON:-}" = none ]; then
    rm -rf requirements/wheels
    arguments+=(${PIP_INDEX_URL:+--build-arg PIP_INDEX_URL="$PIP_INDEX_URL"})
else
    REQUIREMENTS=$requirements k8s/fetch_wheels.sh
fi
if [ -n "${SOURCE:-}" ]; then
    arguments+=(--label org.opencontainers.image.source="$SOURCE")
fi

id() { buildah inspect --type image --format '{{.FromImageID}}' "$image" 2> /dev/null || true; }
previous=$(id)
# chroot: needs neither cgroups nor user namespaces, so it works inside a container, too.
buildah bud --quiet --isolation chroot --network host --pull-never --timestamp "$epoch" \
    --build-arg BASE_IMAGE="$base" \
    --build-arg BASE_DIGEST="$(buildah inspect --type image --format '{{.FromImageDigest}}' "$base")" \
    --build-arg VARIANT="$variant" \
    --build-arg REQUIREMENTS="$requirements" \
    --build-arg VERSION="$version" \
    --build-arg REVISION="$revision" \
    --build-arg CREATED="$created" \
    "${arguments[@]}" \
    --tag "$image" . > /dev/null
# What had the name before, unless it has another
if [ -n "$previous" ] && [ "$previous" != "$(id)" ]; then
    buildah rmi "$previous" > /dev/null 2>&1 || true
fi
printf '%s\n' "$image" "$(buildah inspect --type image --format '{{.FromImageDigest}}' "$image")"
