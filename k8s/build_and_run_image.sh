#!/usr/bin/env bash
# Builds the image with buildah and proves with podman that it runs the way the cluster
# runs it: read-only root, no capability, numeric user, memory limit and no network at all.
#
#   k8s/build_and_run_image.sh [BASE_IMAGE]
#
# BASE_IMAGE  base of the image; "local" (the default) makes one with mmdebstrap, so that
#             no registry is needed; anything else must be pullable or already here
# IMAGE       name of the result             (localhost/mammoseq:check)
# SAMPLE      image file posted to /predict  (the first one under examples/)
# DEVICE      MAMMOSEQ_DEVICE in the run     (cpu)
# MEMORY      memory limit of the run        (2g)
# READY_SECONDS  longest wait for ready      (120)
# DEBIAN_SUITE, DEBIAN_PACKAGES  the local base (bookworm; python3 python3-venv ca-certificates)
# BUILD_ONLY=1   stop after the build
#
# Behind a package proxy: PIP_INDEX_URL and SSL_CERT_FILE (a bundle of certificates) serve
# the build and stay out of the image.
#
# Needs buildah, podman, runc or crun and, for the local base, mmdebstrap. Run as root.
set -euo pipefail
cd "$(dirname "$0")/.."

base_image=${1:-${BASE_IMAGE:-local}}
image=${IMAGE:-localhost/mammoseq:check}
device=${DEVICE:-cpu}
memory=${MEMORY:-2g}
ready_seconds=${READY_SECONDS:-120}
suite=${DEBIAN_SUITE:-bookworm}
packages=${DEBIAN_PACKAGES-python3 python3-venv ca-certificates}

container=mammoseq-check-$$
work=$(mktemp -d)
finish() {
    status=$?
    if podman container exists "$container" 2> /dev/null; then
        [ "$status" = 0 ] || podman logs --tail 50 "$container" >&2 || true
        podman rm --force --time 0 "$container" > /dev/null || true
    fi
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT
say() { printf '%s\n' "== $*"; }
fail() { printf '%s\n' "FAILED: $*" >&2; exit 1; }

for tool in buildah podman; do
    command -v "$tool" > /dev/null || fail "$tool is not installed"
done

# Without systemd, podman's defaults (systemd cgroups, journald) do not work.
if [ ! -d /run/systemd/system ] && [ -z "${CONTAINERS_CONF:-}" ]; then
    cat > "$work/containers.conf" <<-CONF
	[engine]
	cgroup_manager = "cgroupfs"
	events_logger = "file"
	runtime = "$(command -v runc > /dev/null && echo runc || echo crun)"
	[containers]
	default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
	CONF
    export CONTAINERS_CONF=$work/containers.conf
fi

if [ "$base_image" = local ]; then
    base_image=localhost/mammoseq-base:$suite-$(printf '%s' "$packages" | sha256sum | cut -c1-8)
    if ! podman image exists "$base_image"; then
        command -v mmdebstrap > /dev/null || fail "mmdebstrap is not installed; name a base image instead"
        say "making $base_image"
        mmdebstrap --quiet --variant=minbase ${packages:+--include="$packages"} "$suite" "$work/base.tar"
        podman import --quiet "$work/base.tar" "$base_image" > /dev/null
        rm "$work/base.tar"
    fi
fi

say "building $image on $base_image"
pull=always
if podman image exists "$base_image"; then pull=never; fi
proxy=()
if [ -n "${SSL_CERT_FILE:-}" ]; then
    proxy+=(--volume "$SSL_CERT_FILE:/run/build-certificates.crt:ro"
        --build-arg PIP_CERT=/run/build-certificates.crt)
fi
if [ -n "${PIP_INDEX_URL:-}" ]; then
    proxy+=(--build-arg PIP_INDEX_URL="$PIP_INDEX_URL")
fi
buildah bud \
    --isolation "${BUILDAH_ISOLATION:-chroot}" --network host --pull="$pull" \
    "${proxy[@]}" \
    --build-arg BASE_IMAGE="$base_image" \
    --build-arg VERSION="${VERSION:-0.0.0}" \
    --build-arg REVISION="${REVISION:-unknown}" \
    --tag "$image" .

inspect() { podman image inspect --format "$1" "$image"; }
say "built $image, $(($(inspect '{{.Size}}') / 1000000)) MB"
[ "${BUILD_ONLY:-}" != 1 ] || exit 0

user=$(inspect '{{.Config.User}}')
[[ $user =~ ^[1-9][0-9]*:[1-9][0-9]*$ ]] || fail "user '$user' is not a numeric user other than root"
inspect '{{json .Config.Labels}}' | grep -q 'not a medical device' || fail "label of intended use is missing"

if [ -z "${SAMPLE:-}" ]; then
    SAMPLE=$(find examples -type f \( -name '*.png' -o -name '*.jpg' -o -name '*.dcm' \) | sort | head -n 1)
fi
[ -f "$SAMPLE" ] || fail "no sample image: set SAMPLE"

# What python -m app.access key prints: a key, and the line with its hash for the service.
key=mammoseq_$(head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=')
key_line=check:$(printf '%s' "$key" | sha256sum | cut -d ' ' -f 1)

say "running it: read-only, no capability, no network, $memory of memory"
podman run --detach --name "$container" \
    --read-only --read-only-tmpfs=false \
    --tmpfs /tmp:rw,noexec,nosuid,nodev,size=512m,mode=1777 \
    --cap-drop=ALL --security-opt=no-new-privileges \
    --memory "$memory" --memory-swap "$memory" \
    --network none \
    --env MAMMOSEQ_DEVICE="$device" \
    --env MAMMOSEQ_API_KEYS="$key_line" \
    "$image" > /dev/null

# The client is inside: without a network nothing outside can reach the service.
inside() { podman exec --interactive "$container" "$@"; }
running() { [ "$(podman container inspect --format '{{.State.Running}}' "$container")" = true ]; }
status_of() {
    inside python -c '
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(f"http://127.0.0.1:8000{sys.argv[1]}", timeout=5).status)
except urllib.error.HTTPError as error:
    print(error.code)
except OSError:
    print(0)' "$1"
}

started=$(date +%s)
until [ "$(status_of /healthz/ready)" = 200 ]; do
    running || fail "the container stopped before it was ready"
    [ $(($(date +%s) - started)) -lt "$ready_seconds" ] || fail "not ready within $ready_seconds s"
    sleep 0.5
done
say "ready after $(($(date +%s) - started)) s"
[ "$(status_of /healthz/live)" = 200 ] || fail "ready but not live"

say "writing outside /tmp is refused, there is no compiler"
inside python - <<'PYTHON'
import os, shutil
assert os.getuid() != 0, "runs as root"
for directory in ("/", "/app", "/opt/venv", "/app/model_store"):
    try:
        open(os.path.join(directory, "probe"), "w")
    except OSError:
        continue
    raise SystemExit(f"{directory} is writable")
open("/tmp/probe", "w").close()
os.remove("/tmp/probe")
found = [tool for tool in ("cc", "gcc", "g++", "make", "ld") if shutil.which(tool)]
assert not found, f"compiler in the image: {found}"
status = dict(line.split(":\t", 1) for line in open("/proc/1/status") if ":\t" in line)
assert int(status["CapEff"], 16) == 0 == int(status["CapBnd"], 16), "capabilities left"
assert status["NoNewPrivs"].strip() == "1", "new privileges possible"
assert os.environ.get("ORT_DISABLE_TELEMETRY") == "1", "ONNX Runtime would report usage"
PYTHON

[ "$(status_of /v1/models)" = 401 ] || fail "answers without a key"

say "posting $SAMPLE to /predict"
inside env KEY="$key" python -c '
import json, os, sys, time, urllib.request
body = sys.stdin.buffer.read()
request = urllib.request.Request(
    "http://127.0.0.1:8000/predict",
    data=body,
    headers={"Content-Type": sys.argv[1], "Authorization": "Bearer " + os.environ["KEY"]},
)
begin = time.monotonic()
answer = json.load(urllib.request.urlopen(request, timeout=60))
print("probabilities", json.dumps(answer["probabilities"]), f"in {time.monotonic() - begin:.2f} s")
assert abs(sum(answer["probabilities"].values()) - 1) < 1e-3
assert answer.get("heatmap"), "no heatmap in the answer"
metrics = urllib.request.urlopen("http://127.0.0.1:8000/metrics", timeout=5).read().decode()
assert "\nmammoseq_" in metrics, "no mammoseq_ metric"
' "$(case $SAMPLE in *.png) echo image/png ;; *.dcm) echo application/dicom ;; *) echo image/jpeg ;; esac)" < "$SAMPLE"
inside python - <<'PYTHON'
v1 = "/sys/fs/cgroup/memory/memory.max_usage_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"
v2 = "/sys/fs/cgroup/memory.peak", "/sys/fs/cgroup/memory.max"
for paths in (v1, v2):
    try:
        peak, limit = (int(open(path).read()) // 2**20 for path in paths)
    except (OSError, ValueError):
        continue
    print(f"memory peak {peak} MiB, limit {limit} MiB")
PYTHON

say "stopping it with SIGTERM"
begin=$(date +%s)
podman stop --time 30 "$container" > /dev/null
code=$(podman container inspect --format '{{.State.ExitCode}}' "$container")
[ "$code" = 0 ] || fail "exit code $code after SIGTERM"
say "stopped in $(($(date +%s) - begin)) s with exit code 0"
say "image check passed"
