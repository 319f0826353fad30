"""What a worker process does for each kind of job; llama.cpp is loaded here and nowhere else in this room."""
