"""Errors of samplers on a model with a known answer, as docs/sampling.md has them: what fewer steps are paid with.

Made by `python -m tests.benchmarks.outpainting --repeats 2`; a test holds these rows against the document's table.
"""

from __future__ import annotations

from models.bench.report import Quality

QUALITIES = tuple(
    Quality(mode=mode, sampler=sampler, spacing=spacing, steps=steps, one_grid=one_grid, sequence=sequence)
    for mode, sampler, spacing, steps, one_grid, sequence in (
        ("official", "ddpm", "linear", 250, 0.132, 0.347),
        ("official", "ddpm", "linear", 25, 0.170, 0.379),
        ("sound", "ddpm", "linear", 250, 0.134, 0.278),
        ("sound", "ddpm", "log_snr", 25, 0.152, 0.339),
        ("sound", "sde_dpmpp_2m", "log_snr", 25, 0.123, 0.249),
        ("sound", "dpmpp_2m", "log_snr", 25, 0.176, 0.326),
        ("sound", "euler", "log_snr", 25, 0.188, 0.361),
        ("sound", "heun", "log_snr", 25, 0.177, 0.325),
        ("sound, clean prefix", "ddpm", "linear", 250, 0.012, 0.042),
        ("sound, clean prefix", "sde_dpmpp_2m", "log_snr", 25, 0.010, 0.026),
        ("sound, clean prefix", "euler", "log_snr", 25, 0.019, 0.111),
    )
)
"""`steps` are calls of the net for a grid."""
