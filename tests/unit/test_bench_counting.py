"""How often jobs run their nets, and whole jobs driven in every way: the same frames, the same counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models import alone, drawing
from models.bench import counting, driving, ways
from models.bench.released import DEBUG_DECODES, ReleasedNet, guided
from models.bundle import Bundle
from models.evaluator import Answering, Nets
from models.noise import philox
from models.plan import Request, plan
from models.spec import Codec, Mode, Stage
from models.units.asking import Evaluate
from tests.tiny import released_spec, tiny_bundle, written

BUCKETS = (1, 2, 4, 8)


class Watched:
    """A net that is run as it is, and counted."""

    def __init__(self, net: Answering) -> None:
        self._net, self.runs = net, Counter[int]()
        self.device, self.buckets, self.caches = net.device, BUCKETS, net.caches
        self.largest = BUCKETS[-1]

    def bucket(self, rows: int) -> int:
        return next(size for size in self.buckets if size >= rows)

    def __call__(self, parts: Sequence[Evaluate]) -> tuple[Tensor, ...]:
        self.runs[self.bucket(sum(len(part.times) for part in parts))] += 1
        return self._net(parts)

    def close(self) -> None:
        self._net.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return written(tmp_path_factory.mktemp("bundles") / "released", released_spec())


def in_the_released_way(bundle: Bundle) -> Nets:
    return {stage: ReleasedNet(bundle.net(stage), device=torch.device("cpu")) for stage in Stage}


def official(bundle: Bundle, *, num_frames: int = 32) -> Request:
    request = drawing.default_request(bundle.spec, seed=3, label=None, mode=Mode.OFFICIAL)
    return replace(request, num_frames=num_frames, coarse_steps=3, refine_steps=2)


def requests(bundle: Bundle) -> list[Request]:
    own = drawing.default_request(bundle.spec, seed=3, label=0 if bundle.spec.classes else None)
    cached = replace(own, cache=2, coarse_steps=6)
    slow = replace(own, slow_motion=3, num_frames=40)
    return [own, cached, slow, *([official(bundle)] if Mode.OFFICIAL in bundle.spec.modes else [])]


@pytest.mark.parametrize("name", ["tiny", "released"])
def test_a_job_with_its_units_side_by_side_is_the_job_in_order(name: str, request: pytest.FixtureRequest) -> None:
    bundle: Bundle = request.getfixturevalue(name)
    nets = alone.evaluators(bundle)
    for wish in requests(bundle):
        noise = philox(wish.seed)
        ordered = {unit.key: result for unit, result in alone.run(bundle.spec, wish, nets=nets, noise=noise)}
        together = {unit.key: result for unit, result in driving.job(bundle.spec, wish, nets=nets, noise=noise)}
        assert ordered.keys() == together.keys()
        for key, result in ordered.items():
            torch.testing.assert_close(together[key], result, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["tiny", "released"])
def test_what_is_counted_is_what_is_run(name: str, request: pytest.FixtureRequest) -> None:
    bundle: Bundle = request.getfixturevalue(name)
    for wish in requests(bundle):
        nets = {net: Watched(one) for net, one in alone.evaluators(bundle).items()}
        for _ in driving.job(bundle.spec, wish, nets=dict(nets), noise=philox(0)):
            pass
        run = {(str(net), rows): count for net, one in nets.items() for rows, count in one.runs.items()}
        assert dict(counting.packed(bundle.spec, wish, buckets=BUCKETS).runs) == run


def test_the_released_ways_frames_are_ours(released: Bundle) -> None:
    """Leaving out guidance that does nothing, packing rows and keeping modulation changes no frame."""
    wish = official(released)
    noise, theirs = philox(wish.seed), in_the_released_way(released)
    theirs_drawn = {unit.key: out for unit, out in alone.run(released.spec, wish, nets=theirs, noise=noise)}
    ours = driving.job(released.spec, wish, nets=alone.evaluators(released), noise=noise)
    for unit, result in ours:
        torch.testing.assert_close(theirs_drawn[unit.key], result, rtol=0, atol=1e-4)


def test_real_guidance_is_the_two_rows_of_the_released_batch(tiny: Bundle) -> None:
    wish = drawing.default_request(tiny.spec, seed=3, label=1)
    noise, theirs = philox(wish.seed), in_the_released_way(tiny)
    ours = {unit.key: out for unit, out in alone.run(tiny.spec, wish, nets=alone.evaluators(tiny), noise=noise)}
    for unit, result in alone.run(tiny.spec, wish, nets=theirs, noise=noise):
        torch.testing.assert_close(result, ours[unit.key], rtol=0, atol=1e-4)


def test_the_released_way_to_64_frames_costs_what_it_is_known_to_cost() -> None:
    """13 grids; 38,500 rows for both stages, at twice a row each."""
    spec = released_spec()
    wish = ways.at_equal_steps(spec, frames=64)
    tally = counting.as_released(spec, wish)
    assert counting.grids(spec, wish) == 13
    assert 2 * sum(tally.rows.values()) == 38_500
    assert sum(tally.runs.values()) == 38_500 // 2
    assert {rows for _, rows in tally.runs} == {2}


def test_an_autoencoder_is_counted_by_the_size_of_its_pictures() -> None:
    from models.bench import shapes

    spec = shapes.spec_of("S/2", tokens=256)
    wish = replace(ways.at_equal_steps(spec, frames=16, steps=2))
    ours, theirs = counting.packed(spec, wish, buckets=(1, 16)), counting.as_released(spec, wish)
    grids, frames = counting.grids(spec, wish), 16
    decoded = ours.rows[f"{Codec.DECODER} 32"]
    assert decoded == frames + sum(unit.kind == "decode" for unit in plan(spec, wish))
    assert theirs.runs[f"{Codec.DECODER} 32", 1] == decoded + DEBUG_DECODES * grids
    assert ours.rows[f"{Codec.ENCODER} 256"] >= frames


@pytest.mark.parametrize("frames", [16, 40])
def test_ways_differ_in_one_thing_each(frames: int) -> None:
    spec = released_spec()
    found = {way.name: way for way in ways.ways(spec, frames=frames, steps=4, buckets=BUCKETS)}
    first, exact, engine, fewer = (found[name] for name in ways.CHAIN)
    assert first.request == exact.request == engine.request
    assert first.tally.rows == exact.tally.rows
    assert exact.tally == engine.tally
    assert (fewer.request.coarse_steps, fewer.request.mode) == (spec.defaults.coarse_steps, Mode.SOUND)
    assert found[ways.DIRECT].request == found["factorized"].request
    assert found[ways.DIRECT].tally.rows[ways.DIRECT] == found["factorized"].tally.rows[Stage.COARSE]


def test_the_direct_way_is_held_against_the_stages_without_their_autoencoder() -> None:
    from models.bench import shapes

    spec = shapes.spec_of("S/2", tokens=256)
    found = {way.name: way.tally for way in ways.ways(spec, frames=16, steps=2, buckets=BUCKETS)}
    assert dict(found["factorized"].rows) == {"coarse": 2, "refine": 32}
    assert dict(found[ways.DIRECT].rows) == {ways.DIRECT: 2}


def test_the_direct_net_sees_a_grid_of_full_size_frames(released: Bundle) -> None:
    spec = released.spec
    side = spec.grid * spec.refined_size
    assert ways.direct_net(spec).input_size == side
    assert ways.direct_net(spec).width == spec.nets[Stage.COARSE].width


def test_halves_with_other_labels_are_guidance() -> None:
    x = torch.zeros(4, 1, 2, 2)
    assert guided(Evaluate(Stage.COARSE, x, (1.0,) * 4, (0, 0, 2, 2)))
    assert not guided(Evaluate(Stage.COARSE, x, (1.0,) * 4, (2, 2, 2, 2)))
    assert not guided(Evaluate(Stage.COARSE, x[:3], (1.0,) * 3, (0, 0, 2)))
