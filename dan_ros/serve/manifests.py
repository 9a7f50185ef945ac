# SPDX-License-Identifier: Apache-2.0
"""Writes files that start Triton with a model repository: Docker Compose and Kubernetes.

Sources: https://docs.docker.com/reference/compose-file, https://kserve.github.io/website,
https://catalog.ngc.nvidia.com/orgs/nvidia/containers/tritonserver (versions of the image).
"""

from dan_ros.backends.kserve.config import PORTS
from dan_ros.serve.repository import GPU, PYTHON, ServeConfig

IMAGE = 'nvcr.io/nvidia/tritonserver:24.10-py3'  # Triton 2.51, which the tests of dan_ros run
HTTP, GRPC, METRICS = PORTS['http'], PORTS['grpc'], 8002
HEAD = '# Written by `dan-ros serve-config`.\n'
GPU_OF_COMPOSE = """\
    deploy:
      resources:
        reservations:
          devices: [{driver: nvidia, count: 1, capabilities: [gpu]}]
"""


def to_compose(config: ServeConfig) -> str:
    """Return a compose file that starts the server beside the folder `models`."""
    # The image contains ONNX Runtime as a backend of the server, not as a package of Python.
    start = f'tritonserver --model-repository=/models --http-port={HTTP} --grpc-port={GRPC}'
    if config.backend == PYTHON:
        package = 'onnxruntime-gpu' if config.device == GPU else 'onnxruntime'
        start = f'sh -c "pip install {package} && exec {start}"'
    return f"""\
{HEAD}# It listens without encryption and password: put a proxy with TLS in front of it.
services:
  triton:
    image: {IMAGE}
    command: {start}
    volumes: ["./models:/models:ro"]
    ports: ["{HTTP}:{HTTP}", "{GRPC}:{GRPC}", "{METRICS}:{METRICS}"]
    restart: unless-stopped
    healthcheck:
      test: ["CMD", "curl", "--fail", "http://localhost:{HTTP}/v2/health/ready"]
      interval: 10s
{GPU_OF_COMPOSE if config.device == GPU else ''}"""


def to_inference_service(config: ServeConfig, storage: str) -> str:
    """Return an InferenceService of KServe for models at `storage`, such as s3://bucket/models."""
    package = ''
    if config.backend == PYTHON:
        package = ' The image needs the Python package onnxruntime.'
    gpu = '\n          nvidia.com/gpu: "1"' if config.device == GPU else ''
    return f"""\
{HEAD}# Copy the content of models/ to {storage} first.{package}
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: dan-ros
spec:
  predictor:
    minReplicas: 1
    model:
      modelFormat:
        name: triton
      protocolVersion: grpc-v2
      storageUri: {storage}
      runtimeVersion: {IMAGE.partition(':')[2]}
      ports:
        - name: h2c
          protocol: TCP
          containerPort: 9000
      resources:
        requests:
          cpu: "2"
          memory: 2Gi
        limits:
          memory: 4Gi{gpu}
"""
