"""From one graph to one plan: export, TensorRT's compiler, and the cache of what was made."""
