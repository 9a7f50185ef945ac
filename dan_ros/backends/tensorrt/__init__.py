"""TensorRT and TensorRT for RTX: graph conversion, engine builder, engine cache, backend."""
