# One Dockerfile, two images; the base image decides whether CUDA is inside.
#
#   CPU:  python:3.11-slim-bookworm (the default), or any Debian or Ubuntu
#   CUDA: an image with CUDA 13 and cuDNN 9, e.g. nvidia/cuda:13.0.2-cudnn-runtime-ubuntu24.04
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
        && apt-get install --yes --no-install-recommends python3 \
        && apt-get clean \
        && rm -rf /var/lib/apt/lists/*; \
    fi \
    && python3 -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else f"base image has Python {v[0]}.{v[1]}, the service needs 3.11 to 3.13")'


FROM python AS builder
# Debian and Ubuntu ship venv apart from python3.
# hadolint ignore=DL3008
RUN if ! python3 -c 'import ensurepip' 2> /dev/null; then \
        apt-get update \
        && apt-get install --yes --no-install-recommends python3-venv ca-certificates \
        && apt-get clean \
        && rm -rf /var/lib/apt/lists/*; \
    fi
# For a package index of one's own; read by pip, not kept in the image.
ARG PIP_INDEX_URL
ARG PIP_CERT
COPY requirements/serve.txt /tmp/serve.txt
# Wheels only: nothing is compiled, so no stage needs a compiler. pip leaves last.
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --only-binary=:all: --require-hashes -r /tmp/serve.txt \
    && /opt/venv/bin/pip check \
    && /opt/venv/bin/pip uninstall --yes setuptools pip
COPY app /app/app
COPY model_store /app/model_store
# Compiled here because the root filesystem is read-only where the service runs.
RUN /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /app/app \
    && chmod -R a+rX,go-w /app


FROM python AS runtime
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Mammoseq" \
      org.opencontainers.image.description="Predictions and heatmaps for mammograms and series of them. Research software, not a medical device." \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
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
