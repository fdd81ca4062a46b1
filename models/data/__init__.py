"""Where sequences come from: procedural domains and folders of frames. NumPy only, no torch."""
