"""The order of waiting jobs: what the scripts `submit` and `claim` are told, and what the simulator goes by as well.

Within a priority jobs wait by start-time fair queueing (Goyal et al. 1996): a job's tag is the later of the virtual
time (the tag of the job claimed last) and the end of its tenant's previous job, whose length is its `cost`. So tenants
take turns by work, not by jobs, and one that was idle gains nothing by it. Between priorities the higher one goes
first; but while the job that is first in a lower one's list has waited for `AGING_SECONDS`, every `TURN`-th claim is
that priority's. So low jobs do not starve, and a great many of them do not hold up the others either.
"""

from __future__ import annotations

from workers.contracts.job import JobSpec, Priority, Stage

AGING_SECONDS = 600.0
"""Waiting after which a lower priority gets a turn now and then; on a device, the worth of a step of priority."""
TURN = 8
"""One claim in so many goes to a lower priority that has waited so long."""
RANK = {priority: rank for rank, priority in enumerate(Priority)}
"""0 is the highest."""


def cost(spec: JobSpec) -> float:
    """How much of a device a job asks for: frames times the steps of the stages it runs."""
    steps = spec.num_inference_steps + (spec.refine_steps if spec.stages is Stage.REFINED else 0)
    return float(spec.mode.frames_made(spec.num_frames) * steps)
