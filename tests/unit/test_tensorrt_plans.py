"""Which plans of the cache an engine is made of, and what is said when there are none."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from models import bundle as bundles
from models.bundle import Bundle
from models.compiling.engine_cache import EngineCache, Profile, Quality, Recipe, Record, plan_name
from models.compiling.export import source_digest
from models.engine import EngineUnavailable, Precision
from models.engines.tensorrt import find, plans_of
from models.graph import graphs
from models.spec import Stage
from tests.exported import net
from tests.tiny import awake, tiny_spec

BUCKETS = (1, 2, 4)
STATIC = tuple(Profile(least=size, best=size, most=size) for size in BUCKETS)
WIDE = (Profile(least=1, best=2, most=4),)


class Flavour:
    """As much of a flavour as finding a plan takes."""

    name, version = "tensorrt-rtx", "1.7"


@pytest.fixture
def tiny(tmp_path: Path) -> Bundle:
    nets = {stage: net(stage).state_dict() for stage in Stage}
    return bundles.write(tmp_path / "tiny", spec=tiny_spec(), nets=nets, dtype=torch.float32)


class TestFinding:
    """Which plan of the cache is run, and what is said when there is none."""

    def store(
        self, cache: EngineCache, bundle: Bundle, plan: bytes, *, quality: Quality | None = None, **changes: object
    ) -> Record:
        fields = {"flavour": "tensorrt-rtx", "version": "1.7", "targets": ("sm89",), "profiles": STATIC}
        recipe = Recipe.model_validate({"onnx_sha256": "a" * 64, "precision": Precision.FP16} | fields | changes)
        digest = hashlib.sha256(plan).hexdigest()
        record = Record(
            recipe=recipe,
            source=source_digest(graphs(bundle, Stage.COARSE)[0], precision=recipe.precision),
            bundle="tiny",
            net="coarse",
            graph="coarse-whole",
            plan=plan_name(recipe, digest),
            plan_sha256=digest,
            plan_bytes=len(plan),
            onnx_bytes=1,
            export_seconds=0,
            build_seconds=0,
            kernels=1,
            fused_attentions=2,
            depth=2,
            quality=quality,
        )
        cache.store(record, plan)
        return record

    def find(self, cache: EngineCache, bundle: Bundle, *, here: str = "sm89", **options: Any) -> bytes:
        """The content of the plan of the net's whole, which is the only part that is looked for."""
        whole = graphs(bundle, Stage.COARSE)[:1]
        wanted: dict[str, Any] = {"precision": Precision.FP16, "buckets": BUCKETS} | options
        flavour: Any = Flavour()
        records = find(whole, flavour, here=here, cache=cache, path=bundle.path, **wanted)
        (plan,) = plans_of(whole, records, cache=cache, path=bundle.path)
        return plan.content

    def test_the_plan_for_this_gpu_before_one_for_many(self, tmp_path: Path, tiny: Bundle) -> None:
        cache = EngineCache(tmp_path / "engines")
        self.store(cache, tiny, b"many", targets=("sm80", "sm89"))
        assert self.find(cache, tiny) == b"many"
        self.store(cache, tiny, b"wide", profiles=WIDE)
        assert self.find(cache, tiny) == b"wide"
        self.store(cache, tiny, b"static")
        assert self.find(cache, tiny) == b"static"
        assert self.find(cache, tiny, here="sm80") == b"many"

    @pytest.mark.parametrize(
        "changes",
        [
            {"targets": ("sm86",)},
            {"version": "1.8"},
            {"flavour": "tensorrt"},
            {"precision": Precision.BF16},
            {"profiles": STATIC[:2]},
        ],
    )
    def test_a_plan_of_another_kind_is_not_taken(self, tmp_path: Path, tiny: Bundle, changes: dict[str, Any]) -> None:
        cache = EngineCache(tmp_path / "engines")
        self.store(cache, tiny, b"other", **changes)
        with pytest.raises(EngineUnavailable, match="no fp16 plan of coarse-whole for sm89"):
            self.find(cache, tiny)

    def test_the_command_that_makes_it_is_named(self, tmp_path: Path, tiny: Bundle) -> None:
        with pytest.raises(EngineUnavailable) as caught:
            self.find(EngineCache(tmp_path / "engines"), tiny, here="sm90 NVIDIA H200 driver 1.2")
        assert f"gridit compile {tiny.path} --engine tensorrt --target sm90 --precision fp16" in str(caught.value)

    def test_plans_of_other_weights_are_not_taken(self, tmp_path: Path, tiny: Bundle) -> None:
        cache = EngineCache(tmp_path / "engines")
        self.store(cache, tiny, b"first")
        nets = {stage: awake(tiny.net(stage), seed=5).state_dict() for stage in Stage}
        other = bundles.write(tmp_path / "other", spec=tiny.spec, nets=nets, dtype=torch.float32)
        with pytest.raises(EngineUnavailable):
            self.find(cache, other)

    def test_a_changed_plan_is_not_loaded(self, tmp_path: Path, tiny: Bundle) -> None:
        cache = EngineCache(tmp_path / "engines")
        record = self.store(cache, tiny, b"plan")
        cache.path(record).write_bytes(b"plam")
        with pytest.raises(EngineUnavailable, match=r"changed after it was built.*--on-damage rebuild"):
            self.find(cache, tiny)

    def test_every_part_must_be_there(self, tmp_path: Path, tiny: Bundle) -> None:
        cache = EngineCache(tmp_path / "engines")
        self.store(cache, tiny, b"whole")
        flavour: Any = Flavour()
        options: dict[str, Any] = {"precision": Precision.FP16, "buckets": BUCKETS, "cache": cache, "path": tiny.path}
        with pytest.raises(EngineUnavailable, match="no fp16 plan of coarse-reusing"):
            find(graphs(tiny, Stage.COARSE), flavour, here="sm89", **options)

    @pytest.mark.parametrize("accepted", [True, False, None])
    def test_a_quantised_plan_is_taken_only_if_its_quality_was_accepted(
        self, tmp_path: Path, tiny: Bundle, *, accepted: bool | None
    ) -> None:
        cache = EngineCache(tmp_path / "engines")
        said = None if accepted is None else Quality(accepted=accepted, unquantised={}, quantised={})
        self.store(cache, tiny, b"plan", quality=said, precision=Precision.FP8, quantisation="d" * 64)
        if accepted:
            assert self.find(cache, tiny, precision=Precision.FP8) == b"plan"
        else:
            with pytest.raises(EngineUnavailable, match="no fp8 plan"):
                self.find(cache, tiny, precision=Precision.FP8)
