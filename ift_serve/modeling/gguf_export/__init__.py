"""Models written as GGUF, the file that llama.cpp and its relatives load."""
