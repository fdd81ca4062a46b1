"""A job among others equals the job alone, byte for byte: twenty random mixes through the real service."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from typing import Any

import pytest

from service.client import Client
from tests.integration.up_fixtures import ONE_THREAD, up
from tests.tiny import CLASSES, tiny_bundle
from workers.contracts.event import EventType

MIXES = 20
MOST = 8
"""Jobs of a mix: as many as the worker has slots."""

pytestmark = pytest.mark.timeout(300)

Wish = dict[str, Any]
Made = tuple[dict[tuple[str, int], str], str]
"""Hash of each frame by stage and index, and of the video."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    bundle = tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")
    served = {"GRIDIT_BUNDLES": str(bundle.path), "GRIDIT_SLOTS": str(MOST)}
    with up(tmp_path_factory.mktemp("data"), **served, **ONE_THREAD) as started, started.client() as client:
        yield client


def wish(dice: random.Random) -> Wish:
    return {
        "prompt": dice.choice(CLASSES),
        "num_frames": dice.randrange(1, 41),
        "num_inference_steps": dice.randrange(1, 7),
        "seed": dice.randrange(4),
        "sampler": dice.choice(["euler", "heun", "dpmpp_2m", "sde_dpmpp_2m"]),
        "guidance_scale": dice.choice([1.0, 1.5]),
        "priority": dice.choice(["high", "normal", "low"]),
        "cache": dice.choice([1, 1, 2]),
    }


def made(client: Client, job_id: str) -> Made:
    """What a job has made; it must end well."""
    events = list(client.events(job_id))
    assert events[-1].type is EventType.COMPLETED, events[-1]
    frames = [event.data for event in events if event.type is EventType.FRAME]
    video = hashlib.sha256(client.content(job_id)).hexdigest()
    return {(frame["stage"], frame["index"]): frame["sha256"] for frame in frames}, video


def test_a_job_among_others_is_the_job_alone(client: Client) -> None:
    dice = random.Random(11)
    mixes = [[wish(dice) for _ in range(dice.randrange(2, MOST + 1))] for _ in range(MIXES)]
    together = []
    for mix in mixes:
        ids = [client.submit(**wish).id for wish in mix]
        together.append([made(client, job_id) for job_id in ids])
    for mix, results in zip(mixes, together, strict=True):
        for asked, result in zip(mix, results, strict=True):
            assert made(client, client.submit(**asked).id) == result, asked


def test_the_comparison_sees_a_difference(client: Client) -> None:
    asked = wish(random.Random(1))
    one, other = [made(client, client.submit(**asked | {"seed": seed}).id) for seed in (1, 2)]
    assert one[0].keys() == other[0].keys()
    assert one[1] != other[1]
    assert all(one[0][place] != other[0][place] for place in one[0])
