# SPDX-License-Identifier: Apache-2.0
"""DAN, the Distract Your Attention Network: definition, checkpoints, exact fusion, ONNX export."""
