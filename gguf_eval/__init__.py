"""Compare quantization levels of local language models: accuracy, tokens per second and memory."""
