"""PyTorch, the reference backend: the fused network as `network.fuse` defines it."""

import numpy as np
import torch

from dan_ros.backends.batching import Batcher
from dan_ros.model.metadata import ModelInfo
from dan_ros.model.store import ModelFile
from dan_ros.network.export import read_fused
from dan_ros.network.fuse import FusedDAN

MAX_BATCH = 64  # larger sets of faces are run in parts, which bounds memory


class TorchBackend:
    """See `Backend`.

    Args:
        network: in evaluation mode.
        model: what its file says of it.
        model_name: known name or path of the file.
        threads: CPU threads of the whole process; 0 leaves torch's choice.
    """

    name = 'torch'
    device = 'cpu'

    def __init__(
        self, network: FusedDAN, model: ModelInfo, model_name: str, threads: int = 0
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.network, self.model, self.model_name = network, model, model_name
        self.batches = Batcher(len(model.labels), MAX_BATCH)

    @classmethod
    def read(cls, file: ModelFile, threads: int = 0) -> 'TorchBackend':
        """Open an ONNX file with float weights.

        Raises:
            ModelError: the file is not one of this package, or is quantised.
        """
        return cls(*read_fused(file.content, str(file.path)), file.name, threads)

    def warm_up(self) -> None:
        """Run one blank face."""
        self.batches.warm_up(self._run, self.model.input_size)

    def infer(self, faces_rgb: np.ndarray) -> np.ndarray:
        """Logits, float32 [N, C], of uint8 [N, H, W, 3] RGB; N may be 0."""
        return self.batches.infer(self._run, faces_rgb)

    @torch.inference_mode()
    def _run(self, faces_rgb: np.ndarray) -> np.ndarray:
        logits: np.ndarray = self.network(torch.from_numpy(faces_rgb)).numpy()
        return logits

    @torch.inference_mode()
    def attend(self, faces_rgb: np.ndarray) -> np.ndarray:
        """Where each head looks: float32 [N, K, h, w], >= 0, of uint8 [N, H, W, 3] RGB."""
        features = self.network.features(torch.from_numpy(faces_rgb))
        return self.network.attention_maps(features).numpy()
