"""DAN, the Distract Your Attention Network: definition, checkpoints, exact fusion, ONNX export."""
