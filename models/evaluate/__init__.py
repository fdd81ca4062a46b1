"""Is what a bundle draws as good as real sequences? The quality gate, seam and drift curves, FID and FVD."""
