"""The trained network as one ONNX file, and what runs such a file without PyTorch."""
