# SPDX-License-Identifier: Apache-2.0
"""OpenCV's own inference on the CPU: needs nothing beyond the packages of a ROS distribution."""

import numpy as np

from dan_ros.backends.base import DEFAULT_CONFIG, Backend, BackendConfig
from dan_ros.errors import MissingPackageError, ModelError, count_of
from dan_ros.images.opencv import cv2, version
from dan_ros.model import metadata
from dan_ros.model.metadata import ModelInfo
from dan_ros.model.onnx_file import has_operator
from dan_ros.model.store import ModelFile

MIN_VERSION = (4, 10)  # first version of OpenCV that accepts uint8 inputs
FATAL_OPERATOR = 'Shape'  # if it gives the batch, a division by zero may end the process


class OpenCvBackend(Backend):
    """OpenCV's module dnn on the CPU.

    It uses only `threads` of its config, which sets OpenCV's threads in the whole process; 0
    changes nothing. Float weights are faster here than int8.

    Raises:
        MissingPackageError: OpenCV is too old.
        ModelError: the file is not an ONNX file of this package, or OpenCV cannot run it.
    """

    name = 'opencv'

    def __init__(self, file: ModelFile, config: BackendConfig = DEFAULT_CONFIG) -> None:
        if version() < MIN_VERSION:
            raise MissingPackageError(
                f"the backend 'opencv' needs OpenCV 4.10 or newer; this is {cv2.__version__}"
            )
        model = ModelInfo.from_onnx(file.content, str(file.path))
        if has_operator(file.content, FATAL_OPERATOR):
            raise ModelError(
                f'{file.path}: it has the operator {FATAL_OPERATOR}, with which OpenCV may end the '
                'process; use another backend, or export it with a fixed batch and adopt it again'
            )
        if config.threads:
            cv2.setNumThreads(config.threads)
        try:
            self._network = cv2.dnn.readNetFromONNX(np.frombuffer(file.content, np.uint8))
            super().__init__(model, file.name)
            answer = self._run(np.zeros((2, *model.input_size, 3), np.uint8))
        except cv2.error as error:
            reason = ' '.join(error.err.split())
            raise ModelError(f'{file.path}: OpenCV cannot run it: {reason}') from None
        if answer.shape != (2, len(model.labels)):
            raise ModelError(
                f'{file.path}: its metadata has {count_of(len(model.labels), "label")}, but OpenCV '
                f'gives {list(answer.shape)} for two faces. {metadata.REMEDY}'
            )

    def _run(self, faces_rgb: np.ndarray) -> np.ndarray:
        self._network.setInput(faces_rgb, metadata.INPUT_NAME)
        logits: np.ndarray = self._network.forward(metadata.OUTPUT_NAME)
        return logits.copy()
