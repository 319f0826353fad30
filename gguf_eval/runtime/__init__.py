"""The only room that runs models: everything that needs llama.cpp loaded."""
