# syntax=docker/dockerfile:1
# Two images from one source: `cpu` (the default) and `gpu` (CUDA, TensorRT).
#   docker build -t gridit-serve .                     docker run -p 8000:8000 -v gridit:/data gridit-serve
#   docker build -t gridit-serve:gpu --target gpu .    docker run --gpus all -p 8000:8000 -v gridit:/data gridit-serve:gpu
# The virtual environment is made in a builder stage and copied; the final images hold no build tool and run as no root.

# hadolint global ignore=DL3008,DL3013
# (packages of the distribution follow its security updates; Python's are pinned by constraints.txt)

FROM python:3.11.13-slim-bookworm AS base-cpu
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/*

FROM nvidia/cuda:13.0.2-base-ubuntu24.04 AS base-gpu
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 tini \
    && rm -rf /var/lib/apt/lists/*

# What changes the installed dependencies, apart from the source: an edit of the source reinstalls nothing.
FROM python:3.11.13-slim-bookworm AS requirements
WORKDIR /src
COPY pyproject.toml ./
RUN python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
extras = project["optional-dependencies"]; \
base = project["dependencies"] + extras["latent"] + extras["objects"]; \
open("cpu.txt", "w").write("\n".join(base + extras["openvino"])); \
open("gpu.txt", "w").write("\n".join(base + extras["tensorrt"]))'

FROM base-cpu AS builder-cpu
ARG TORCH_BACKEND=cpu
WORKDIR /src
RUN python3 -m venv /opt/tools && /opt/tools/bin/pip install --no-cache-dir uv==0.13.9 \
    && python3 -m venv /opt/gridit
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache \
    /opt/tools/bin/uv pip install --python /opt/gridit --torch-backend "${TORCH_BACKEND}" -c constraints.txt torch
COPY --from=requirements /src/cpu.txt ./
RUN --mount=type=cache,target=/root/.cache /opt/gridit/bin/pip install -c constraints.txt -r cpu.txt
COPY . .
RUN /opt/gridit/bin/pip install --no-cache-dir --no-deps . \
    && /opt/gridit/bin/pip uninstall --yes pip

FROM base-gpu AS builder-gpu
ARG TORCH_BACKEND=cu130
WORKDIR /src
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/tools && /opt/tools/bin/pip install --no-cache-dir uv==0.13.9 \
    && python3 -m venv /opt/gridit
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache \
    /opt/tools/bin/uv pip install --python /opt/gridit --torch-backend "${TORCH_BACKEND}" -c constraints.txt torch
COPY --from=requirements /src/gpu.txt ./
RUN --mount=type=cache,target=/root/.cache /opt/gridit/bin/pip install -c constraints.txt -r gpu.txt
COPY . .
RUN /opt/gridit/bin/pip install --no-cache-dir --no-deps . \
    && /opt/gridit/bin/pip uninstall --yes pip

FROM base-gpu AS gpu
LABEL org.opencontainers.image.title="GriDiT Serve (GPU)" \
      org.opencontainers.image.description="Long image sequences from grid-based diffusion, with TensorRT" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
RUN install -d -o 10001 -g 10001 /data
COPY --from=builder-gpu /opt/gridit /opt/gridit
ENV PATH=/opt/gridit/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/data \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    GRIDIT_DATA_DIR=/data \
    GRIDIT_HOST=0.0.0.0 \
    GRIDIT_PORT=8000 \
    GRIDIT_LOG_FORMAT=json
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000 9100
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=4)"]
ENTRYPOINT ["tini", "--", "gridit"]
CMD ["up"]

FROM base-cpu AS cpu
LABEL org.opencontainers.image.title="GriDiT Serve" \
      org.opencontainers.image.description="Long image sequences from grid-based diffusion" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
RUN install -d -o 10001 -g 10001 /data
COPY --from=builder-cpu /opt/gridit /opt/gridit
ENV PATH=/opt/gridit/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/data \
    GRIDIT_DATA_DIR=/data \
    GRIDIT_HOST=0.0.0.0 \
    GRIDIT_PORT=8000 \
    GRIDIT_LOG_FORMAT=json
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000 9100
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=4)"]
ENTRYPOINT ["tini", "--", "gridit"]
CMD ["up"]
