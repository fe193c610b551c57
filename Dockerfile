# One Dockerfile, two images.
#
#   VARIANT=cpu   (the default) on python:3.11-slim-bookworm, or any Debian or Ubuntu
#   VARIANT=cuda  on an image with CUDA 13 and cuDNN 9, such as
#                 BASE_IMAGE=nvidia/cuda:13.0.2-cudnn-runtime-ubuntu24.04
#
# A base image without Python gets the python3 of its distribution, which must be
# 3.11 to 3.13 (Debian 12 and 13, Ubuntu 24.04). docs/deploy.md has the commands.

ARG BASE_IMAGE=python:3.11-slim-bookworm

# The base image, with a Python that the service runs on. Builder and runtime both
# start here, so that the virtual environment finds the same interpreter in both.
FROM ${BASE_IMAGE} AS python
# The distribution fixes the version of its python3; the check below fixes the range.
# hadolint ignore=DL3008
RUN if ! command -v python3 > /dev/null; then \
        apt-get update \
        && apt-get install --yes --no-install-recommends python3 libstdc++6 \
        && apt-get clean \
        && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/ldconfig/aux-cache; \
    fi \
    && python3 -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else f"base image has Python {v[0]}.{v[1]}, the service needs 3.11 to 3.13")'


FROM python AS builder
# Where `make wheels` has left the wheels in requirements/wheels, pip among them, the build
# takes those and asks no network for anything.
# hadolint ignore=DL3008
RUN --mount=type=bind,source=requirements,target=/requirements \
    if ! [ -d /requirements/wheels ] && ! python3 -m pip --version > /dev/null 2>&1; then \
        apt-get update \
        && apt-get install --yes --no-install-recommends python3-pip python3-venv ca-certificates; \
    fi
# For a package index of one's own; read by pip, not kept in the image.
ARG PIP_INDEX_URL
# What is installed, with its hashes: a file in requirements/.
ARG REQUIREMENTS=serve.txt
# Wheels only: nothing is compiled, so no stage needs a compiler. The virtual environment
# has no pip: the one outside fills it.
RUN --mount=type=bind,source=requirements,target=/requirements \
    if [ -d /requirements/wheels ]; then \
        PYTHONPATH=$(echo /requirements/wheels/pip-*.whl) \
        && export PYTHONPATH PIP_NO_INDEX=1 PIP_FIND_LINKS=/requirements/wheels; \
    fi \
    && python3 -m venv --without-pip /opt/venv \
    && python3 -m pip --python /opt/venv/bin/python install --no-cache-dir --no-compile \
        --only-binary=:all: --no-deps --require-hashes \
        --requirement "/requirements/${REQUIREMENTS}" \
    && python3 -m pip --python /opt/venv/bin/python check
ARG VARIANT=cpu
# The wheel of ONNX Runtime has CPU and CUDA in it. What only a GPU needs is four fifths of it.
RUN case "${VARIANT}" in \
        cuda) ;; \
        cpu) rm /opt/venv/lib/python3.*/site-packages/onnxruntime/capi/libonnxruntime_providers_cuda.so \
            /opt/venv/lib/python3.*/site-packages/onnxruntime/capi/libonnxruntime_providers_tensorrt.so ;; \
        *) echo "VARIANT is cpu or cuda, not ${VARIANT}" >&2; exit 1 ;; \
    esac
COPY app /app/app
COPY model_store /app/model_store
# Compiled here because the root filesystem is read-only where the service runs. By content,
# not by time, and always in the same way: two builds are the same, byte for byte.
RUN PYTHONHASHSEED=0 /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash \
        /opt/venv/lib /app/app \
    && chmod -R a+rX,go-w /app


FROM python AS runtime
# python:*-slim has its own pip, in /usr/local; the service installs nothing. Neither does it
# become anybody else.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3.*/ensurepip \
        /usr/local/lib/python3.*/site-packages/pip /usr/local/lib/python3.*/site-packages/pip-* \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} +
ARG BASE_IMAGE
ARG BASE_DIGEST
ARG VARIANT=cpu
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED
LABEL org.opencontainers.image.title="Mammoseq" \
      org.opencontainers.image.description="Predictions and heatmaps for mammograms and series of them. Research software, not a medical device." \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.base.digest="${BASE_DIGEST}" \
      mammoseq.variant="${VARIANT}" \
      mammoseq.intended-use="Research software, not a medical device"
# ONNX Runtime 1.29 and later reports usage to its maker unless told not to before import.
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    MAMMOSEQ_HOST=0.0.0.0 \
    MAMMOSEQ_PORT=8000 \
    MAMMOSEQ_MODEL_STORE=/app/model_store
WORKDIR /app
COPY --from=builder /opt/venv /opt/venv
COPY --from=builder /app /app
# Numeric, so that Kubernetes can prove it is not root. Owns no file in the image.
USER 10001:10001
EXPOSE 8000
# The exec form makes the service process 1: it gets SIGTERM itself.
ENTRYPOINT ["python", "-m", "app"]
