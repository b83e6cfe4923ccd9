"""Models behind an OpenAI-compatible endpoint: vLLM, Ollama, llama.cpp's server and others."""
