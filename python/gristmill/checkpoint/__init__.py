"""Files of models: saved folders, deployed GGUF."""
