"""DDIM (Song et al. 2021) with eta 0: no noise but the first.

It moves along the line through x and its clean estimate, as Euler's method on the probability-flow ODE does, on every
schedule; so it is that sampler under the name it has in the diffusion literature.
"""

from models.samplers.euler import sample

__all__ = ["sample"]
