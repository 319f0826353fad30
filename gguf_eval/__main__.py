"""``python -m gguf_eval`` is the ``gguf-eval`` command."""

from gguf_eval.cli import main

if __name__ == "__main__":
    main()
