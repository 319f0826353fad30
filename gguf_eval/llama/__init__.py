"""The one client of llama.cpp: its libraries, its log, its tensors, and a process of its own to run it in."""
