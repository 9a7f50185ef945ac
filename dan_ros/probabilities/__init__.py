# SPDX-License-Identifier: Apache-2.0
"""From logits to probabilities: temperature, class prior, and the calibration of a robot."""

from dan_ros.probabilities.calibration import Calibration
from dan_ros.probabilities.calibrator import Calibrator
from dan_ros.probabilities.prior import MODEL_PRIOR, Prior

__all__ = ['MODEL_PRIOR', 'Calibration', 'Calibrator', 'Prior']
