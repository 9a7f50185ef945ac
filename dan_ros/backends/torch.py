"""PyTorch, the reference backend: the fused network as `network.fuse` defines it."""

import numpy as np
import torch

from dan_ros.model_store import ModelFile
from dan_ros.network.export import read_fused


class TorchBackend:
    """See `Backend`.

    Args:
        file: the ONNX file, with float weights.
        threads: CPU threads of the whole process; 0 leaves torch's choice.

    Raises:
        ModelError: the file is not one of this package, or is quantised.
    """

    name = 'torch'
    device = 'cpu'

    def __init__(self, file: ModelFile, threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._network, self.model = read_fused(file.content, str(file.path))

    @torch.inference_mode()
    def infer(self, faces_rgb: np.ndarray) -> np.ndarray:
        """Logits, float32 [N, C], of uint8 [N, H, W, 3] RGB; N may be 0."""
        if len(faces_rgb) == 0:
            return np.zeros((0, len(self.model.labels)), np.float32)
        return self._network(torch.from_numpy(faces_rgb)).numpy()
