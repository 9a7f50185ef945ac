# SPDX-License-Identifier: Apache-2.0
"""PyTorch on the CPU: the reference backend, the fused network of `network.fuse`."""

import numpy as np
import torch

from dan_ros.backends.base import DEFAULT_CONFIG, Backend, BackendConfig
from dan_ros.errors import BackendError
from dan_ros.model.metadata import ModelInfo
from dan_ros.model.store import ModelFile
from dan_ros.network.export import read_fused
from dan_ros.network.fuse import FusedDAN


class TorchBackend(Backend):
    """PyTorch on the CPU.

    `threads` are those of the whole process; 0 keeps torch's setting.
    """

    name = 'torch'
    max_batch = 64

    def __init__(
        self, network: FusedDAN, model: ModelInfo, model_name: str, threads: int = 0
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.network = network
        super().__init__(model, model_name)

    @classmethod
    def read(cls, file: ModelFile, config: BackendConfig = DEFAULT_CONFIG) -> 'TorchBackend':
        """Load an ONNX file with float weights; `config.threads` is used.

        Raises:
            BackendError: int8 was requested.
            ModelError: the file was not made by this package, or is quantized.
        """
        if config.precision == 'int8':
            raise BackendError(
                'torch runs float weights only: set backend.precision to auto, or backend.name to '
                'onnxruntime'
            )
        return cls(*read_fused(file.content, str(file.path)), file.name, config.threads)

    @torch.inference_mode()
    def _run(self, faces_rgb: np.ndarray) -> np.ndarray:
        logits: np.ndarray = self.network(torch.from_numpy(faces_rgb)).numpy()
        return logits

    @torch.inference_mode()
    def attend(self, faces_rgb: np.ndarray) -> np.ndarray:
        """Attention maps of the K heads, float32 [N, K, h, w] >= 0, of uint8 [N, H, W, 3] RGB."""
        features = self.network.features(torch.from_numpy(faces_rgb))
        return self.network.attention_maps(features).numpy()
