"""TODO backends.tensorrt."""
