# SPDX-License-Identifier: Apache-2.0
import os

__path__ = __import__('pkgutil').extend_path(__path__, __name__)
__version__ = '0.1.0'

# ONNX Runtime wheels since 1.29 write a device id into the user's cache and send usage data to
# Microsoft, unless this variable is set before they are imported.
os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')
