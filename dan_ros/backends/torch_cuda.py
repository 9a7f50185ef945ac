"""PyTorch on a GPU: convolutions in fp16 and channels last, in CUDA graphs of a few sizes."""

from collections.abc import Callable

import numpy as np
import torch

from dan_ros.backends import cuda
from dan_ros.backends.batching import Batcher
from dan_ros.errors import BackendError
from dan_ros.model.store import ModelFile
from dan_ros.network.export import read_fused

MAX_BATCH = 64
# Every size has a graph: for one that it has not seen cuDNN looks for the best algorithm again.
GRAPH_BATCHES = (1, 2, 4, 8, 16, 32, MAX_BATCH)
WARM_UP_RUNS = 3  # in which cuDNN chooses its algorithms, before a graph is recorded


class TorchCudaBackend:  # needs a GPU
    """See `Backend`.

    Args:
        file: the ONNX file, with float weights.
        precision: auto or fp16, or fp32.

    Raises:
        BackendError: there is no GPU, or this torch can't use it.
        ModelError: the file is not one of this package, or is quantised.
    """

    name = 'torch_cuda'

    def __init__(self, file: ModelFile, precision: str = 'auto') -> None:
        device = cuda.require_device()
        if not torch.cuda.is_available():
            raise BackendError(
                f'torch {torch.__version__} can not use {device.name}: install a build for CUDA, '
                "see https://pytorch.org/get-started (on a Jetson NVIDIA's wheels)"
            )
        if precision not in ('auto', 'fp16', 'fp32'):
            raise BackendError(f'torch_cuda runs in fp16 or fp32, not in {precision}')
        self.precision = 'fp32' if precision == 'fp32' else 'fp16'
        network, self.model = read_fused(file.content, str(file.path))
        if self.precision == 'fp16':
            network.halve()
        self.network = network.to(device='cuda', memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model_name = file.name
        self.device = f'cuda:0 {device.name}, torch {torch.__version__} {self.precision}'
        self._graphs: dict[int, Callable[[], None]] = {}
        shape = (MAX_BATCH, *self.model.input_size, 3)
        self._host = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        self._faces = torch.zeros(shape, dtype=torch.uint8, device='cuda')
        self._logits = torch.zeros(MAX_BATCH, len(self.model.labels), device='cuda')
        self.batches = Batcher(len(self.model.labels), MAX_BATCH, GRAPH_BATCHES)

    def warm_up(self) -> None:
        """Record all 7 graphs: 28 runs, of 508 faces in all, and cuDNN's search at each size."""
        self.batches.warm_up(self._run, self.model.input_size)

    def infer(self, faces_rgb: np.ndarray) -> np.ndarray:
        """Logits, float32 [N, C], of uint8 [N, H, W, 3] RGB; N may be 0."""
        return self.batches.infer(self._run, faces_rgb)

    def _run(self, faces_rgb: np.ndarray) -> np.ndarray:
        try:
            # Shapes are few and stay: the fastest algorithm for each is worth looking for.
            with torch.inference_mode(), torch.backends.cudnn.flags(benchmark=True):
                return self._run_graph(faces_rgb)
        except RuntimeError as error:
            raise cuda.translated(error) from None

    def _run_graph(self, faces_rgb: np.ndarray) -> np.ndarray:
        count = len(faces_rgb)
        size = next(batch for batch in GRAPH_BATCHES if batch >= count)
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
            for _ in range(WARM_UP_RUNS):
                self._step(size)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step(size)
        replay: Callable[[], None] = graph.replay
        return replay
