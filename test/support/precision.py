# SPDX-License-Identifier: Apache-2.0
"""How precisely a backend computes float models here."""

import pytest


def uses_bf16(backend: str) -> bool:
    """Whether a backend computes float models in bf16, as OpenVINO does where that is fast.

    Numbers have 8 significant bits then, so results are wrong by up to 0.4 % in each step.
    """
    if backend != 'openvino':
        return False
    openvino = pytest.importorskip('openvino')
    return 'bf' in str(openvino.Core().get_property('CPU', 'INFERENCE_PRECISION_HINT'))
