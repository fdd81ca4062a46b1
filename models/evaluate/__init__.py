"""The quality gate: is what a bundle draws as good as the data it was trained on? NumPy only."""
