"""Nets in 8 bits: scales from the bundle's own samples, float8 for GPUs, integers for CPUs, and the verdict on both.

`prepare` is what a build calls; nothing is built or stored here.
"""

from models.quantise.preparing import Prepared, prepare

__all__ = ["Prepared", "prepare"]
