"""Training of the nets that ship: recipes, batches, an exactly resumable loop, and pictures of how it goes."""
