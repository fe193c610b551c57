#!/usr/bin/env bash
# Look at all overlays, with each component, and at the Dockerfile with checkov: `make checkov`.
#
#   k8s/check_with_checkov.sh [CHECKOV]    # the program; default: the one in PATH
#
# What it finds and is chosen is in checkov.yaml, with the reason. Needs kubectl; asks no network.
set -euo pipefail
cd "$(dirname "$0")/.."
checkov=$(realpath "$(command -v "${1:-checkov}")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir "$work/found"
cp Dockerfile "$work/found/"
cp -r k8s "$work/k8s"
for folder in monitoring kserve; do
    kubectl kustomize "k8s/$folder" > "$work/found/$folder.yaml"
done
for overlay in k8s/overlays/*/; do
    name=$(basename "$overlay")
    kubectl kustomize "$overlay" > "$work/found/$name.yaml"
    for component in k8s/components/*/; do
        cat > "$work/kustomization.yaml" << SITE
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [$overlay]
components: [$component]
SITE
        kubectl kustomize "$work" > "$work/found/$name-$(basename "$component").yaml"
    done
done

look() { "$checkov" --config-file k8s/checkov.yaml --directory "$1"; }
look "$work/found"
echo "checkov finds nothing in $(ls "$work/found" | wc -l) files"

# And it would find something.
mkdir "$work/wrong"
sed 's/allowPrivilegeEscalation: false/allowPrivilegeEscalation: true/' "$work/found/cpu.yaml" \
    > "$work/wrong/cpu.yaml"
if look "$work/wrong" > "$work/output"; then
    echo "checkov does not see a privilege that may grow" >&2
    exit 1
fi
grep --quiet CKV_K8S_20 "$work/output"
echo "and it finds a container that may gain privileges"
