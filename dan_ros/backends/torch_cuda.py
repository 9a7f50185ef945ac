# SPDX-License-Identifier: Apache-2.0
"""PyTorch on a GPU: fp16 convolutions in channels-last order, run as CUDA graphs."""

from collections.abc import Callable

import numpy as np
import torch

from dan_ros.backends import cuda
from dan_ros.backends.base import DEFAULT_CONFIG, Backend, BackendConfig
from dan_ros.backends.batching import padded_size
from dan_ros.errors import BackendError
from dan_ros.model.store import ModelFile
from dan_ros.network.export import read_fused

MAX_BATCH = 64
# One graph per batch size; for any other size cuDNN would search for its algorithms again.
GRAPH_BATCHES = (1, 2, 4, 8, 16, 32, MAX_BATCH)
SEARCH_RUNS = 3  # runs before a graph is recorded, in which cuDNN chooses its algorithms


class TorchCudaBackend(Backend):  # needs a GPU
    """PyTorch on a GPU. The warm-up records 7 graphs in 28 runs.

    It uses `precision` of its config: fp16, fp32, or auto for fp16.

    Raises:
        BackendError: there is no GPU, or this torch cannot use it.
        ModelError: the file was not made by this package, or is quantized.
    """

    name = 'torch_cuda'
    max_batch = MAX_BATCH
    warm_up_batches = GRAPH_BATCHES

    def __init__(self, file: ModelFile, config: BackendConfig = DEFAULT_CONFIG) -> None:
        device = cuda.require_device()
        if not torch.cuda.is_available():
            raise BackendError(
                f'torch {torch.__version__} cannot use {device.name}: install a CUDA build, see '
                "https://pytorch.org/get-started (on a Jetson, NVIDIA's wheels)"
            )
        if config.precision not in ('auto', 'fp16', 'fp32'):
            raise BackendError(
                f'torch_cuda runs in fp16 or fp32, not in {config.precision}: set '
                'backend.precision to auto'
            )
        self.precision = 'fp32' if config.precision == 'fp32' else 'fp16'
        network, model = read_fused(file.content, str(file.path))
        if self.precision == 'fp16':
            network.halve()
        self.network = network.to(device='cuda', memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._graphs: dict[int, Callable[[], None]] = {}
        shape = (MAX_BATCH, *model.input_size, 3)
        self._host = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        self._faces = torch.zeros(shape, dtype=torch.uint8, device='cuda')
        self._logits = torch.zeros(MAX_BATCH, len(model.labels), device='cuda')
        described = f'cuda:0 {device.name}, torch {torch.__version__} {self.precision}'
        super().__init__(model, file.name, described)

    def _run(self, faces_rgb: np.ndarray) -> np.ndarray:
        try:
            # There are few shapes, so searching for the fastest algorithm of each pays off.
            with torch.inference_mode(), torch.backends.cudnn.flags(benchmark=True):
                return self._run_graph(faces_rgb)
        except RuntimeError as error:
            raise cuda.translate_error(error) from None

    def _run_graph(self, faces_rgb: np.ndarray) -> np.ndarray:
        count = len(faces_rgb)
        size = padded_size(count, GRAPH_BATCHES)
        self._host[:count].copy_(torch.from_numpy(faces_rgb))
        self._faces[:count].copy_(self._host[:count], non_blocking=True)
        if size not in self._graphs:
            self._graphs[size] = self._record(size)
        self._graphs[size]()
        logits: np.ndarray = self._logits[:count].cpu().numpy()
        return logits

    def _step(self, size: int) -> None:
        self._logits[:size] = self.network(self._faces[:size])

    def _record(self, size: int) -> Callable[[], None]:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(SEARCH_RUNS):
                self._step(size)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step(size)
        replay: Callable[[], None] = graph.replay
        return replay
