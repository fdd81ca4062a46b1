"""The order of waiting jobs: what the scripts `submit` and `claim` are told, and what the simulator goes by as well.

Within a priority jobs wait by start-time fair queueing (Goyal et al. 1996): a job's tag is the later of the virtual
time (the tag of the job claimed last) and the end of its tenant's previous job, whose length is its `cost`. So tenants
take turns by work, not by jobs, and one that was idle gains nothing by it. Between priorities the head that was
submitted first goes first, where each priority step counts as `AGING_SECONDS` of waiting: low jobs grow old, not
hungry.
"""

from __future__ import annotations

from workers.contracts.job import JobSpec, Priority, Stage

AGING_SECONDS = 600.0
"""Waiting that is worth one step of priority."""
OFFSETS = {Priority.HIGH: -AGING_SECONDS, Priority.NORMAL: 0.0, Priority.LOW: AGING_SECONDS}
"""Added to the time of submission when heads of different priorities are compared; the least goes first."""


def cost(spec: JobSpec) -> float:
    """How much of a device a job asks for: frames times the steps of the stages it runs."""
    steps = spec.num_inference_steps + (spec.refine_steps if spec.stages is Stage.REFINED else 0)
    return float(spec.mode.frames_made(spec.num_frames) * steps)
