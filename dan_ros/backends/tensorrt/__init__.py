# SPDX-License-Identifier: Apache-2.0
"""TensorRT and TensorRT for RTX: graph conversion, engine builder, engine cache, backend."""
