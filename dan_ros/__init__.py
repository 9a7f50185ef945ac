# SPDX-License-Identifier: Apache-2.0
import os

__path__ = __import__('pkgutil').extend_path(__path__, __name__)
__version__ = '0.1.0'

# Wheels of ONNX Runtime from 1.29 on write an id of the device into the user's cache and report to
# Microsoft how they are used, unless this is set when they are loaded.
os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')
