"""Makes and reads model files: headers, hub downloads, conversion, quantization."""
