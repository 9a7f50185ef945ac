# SPDX-License-Identifier: Apache-2.0
"""Runs model.onnx in Triton's Python backend; `dan-ros serve-config` copies this file to model.py.

It runs inside the server and imports nothing of dan_ros. The interface:
https://github.com/triton-inference-server/python_backend.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


class TritonPythonModel:
    """One instance of the model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load model.onnx, which is beside this file, on the device of the instance."""
        options = onnxruntime.SessionOptions()
        parameters = json.loads(args['model_config']).get('parameters', {})
        threads = parameters.get('intra_op_thread_count', {}).get('string_value', '0')
        options.intra_op_num_threads = int(threads)
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        provider: Any = 'CPUExecutionProvider'
        if args['model_instance_kind'] == 'GPU':
            provider = ('CUDAExecutionProvider', {'device_id': args['model_instance_device_id']})
        file = Path(args['model_repository'], args['model_version'], 'model.onnx')
        self.session = onnxruntime.InferenceSession(str(file), options, providers=[provider])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run the faces of all requests, uint8 [n, H, W, 3] each, in one batch."""
        import triton_python_backend_utils as triton  # this module exists only inside the server

        # Use DLPack, because servers built for NumPy 1 misread the arrays of NumPy 2.
        faces = [np.from_dlpack(triton.get_input_tensor_by_name(r, 'faces')) for r in requests]
        (logits,) = self.session.run(['logits'], {'faces': np.concatenate(faces)})
        parts = np.split(logits, np.cumsum([len(part) for part in faces])[:-1])
        tensors = [triton.Tensor.from_dlpack('logits', part) for part in parts]
        return [triton.InferenceResponse([tensor]) for tensor in tensors]
