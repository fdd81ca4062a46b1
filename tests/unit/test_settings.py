"""Settings: the environment wins over defaults, arguments over it, and every mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from models import engines
from models.compiling import engine_cache
from models.engine import Precision
from models.engines import torch as torch_engine
from models.engines.torch import Mode
from workers.contracts import settings
from workers.contracts.errors import InvalidSettings
from workers.contracts.settings import EngineChoice


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in settings.Settings.model_fields:
        monkeypatch.delenv(f"GRIDIT_{name.upper()}", raising=False)


def test_arguments_win_over_the_environment_and_it_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDIT_SLOTS", "5")
    monkeypatch.setenv("GRIDIT_PORT", "81")
    monkeypatch.setenv("GRIDIT_BUNDLES", "/a:/b")
    monkeypatch.setenv("GRIDIT_ENGINE", "torch")
    loaded = settings.load(port=82, slots=None)
    assert (loaded.slots, loaded.port, loaded.engine) == (5, 82, EngineChoice.TORCH)
    assert loaded.bundles == (Path("/a"), Path("/b"))
    assert loaded.store_dir == loaded.data_dir / "store"
    assert settings.load().bundles == (Path("/a"), Path("/b"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLOTS", "0"),
        ("SLOTS", "many"),
        ("PORT", "65536"),
        ("ENGINE", "abacus"),
        ("PRECISION", "fp4"),
        ("ENGINE_BUILDS", "sometimes"),
        ("ENGINE_BUILD_TRIES", "0"),
        ("TORCH_MODE", "fast"),
        ("REDIS_URL", "http://x"),
        ("BUNDLES", ""),
        ("LOG_LEVEL", "loud"),
        ("BEAT_SECONDS", "3.9"),
        ("STORE", "/a/path"),
        ("STORE", "memory:///"),
        ("STORE", "s3:///prefix"),
        ("STORE", "file:///"),
        ("STORE", "file://relative/path"),
        ("STORE_BYTES", "0"),
        ("SLOT", "2"),
        ("gridit_lower", "2"),
    ],
)
def test_a_mistake_stops_start_up_and_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    variable = name if name.startswith("gridit") else f"GRIDIT_{name}"
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidSettings) as refused:
        settings.load()
    assert name.lower() in refused.value.message.lower()


@pytest.mark.parametrize(
    ("engine", "precision"),
    [
        ("torch", "fp16"),
        ("torch", "int8"),
        ("openvino", "fp16"),
        ("openvino", "fp8"),
        ("tensorrt", "fp32"),
        ("tensorrt", "int8"),
    ],
)
def test_an_engine_that_does_not_compute_so_is_refused_with_what_it_does(
    monkeypatch: pytest.MonkeyPatch, engine: str, precision: str
) -> None:
    monkeypatch.setenv("GRIDIT_ENGINE", engine)
    monkeypatch.setenv("GRIDIT_PRECISION", precision)
    with pytest.raises(InvalidSettings, match=rf"GRIDIT_PRECISION: {engine} .* {precision}, only in .*bf16.*or auto"):
        settings.load()
    for known in settings.COMPUTES[EngineChoice(engine)]:
        assert settings.load(precision=known).precision is known
    monkeypatch.setenv("GRIDIT_ENGINE", "auto")
    assert settings.load().precision == precision


def test_every_engine_and_mode_can_be_asked_for() -> None:
    assert {choice.value for choice in EngineChoice} == {"auto", *engines.names()}
    assert {choice.value for choice in settings.TorchMode} == set(Mode)
    assert {choice.value for choice in settings.PrecisionChoice} == {"auto", *Precision}


@pytest.mark.parametrize("url", ["s3://key:{}@b/p", "s3://{}@b/p", "az://b/p?sig={}", "s3://b/p#{}"])
def test_credentials_in_a_stores_url_are_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("GRIDIT_STORE", url.format("hush"))
    with pytest.raises(InvalidSettings, match=r"GRIDIT_STORE.*environment") as refused:
        settings.load()
    assert "hush" not in refused.value.message


def test_every_mistake_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDIT_SLOTS", "0")
    monkeypatch.setenv("GRIDIT_PORT", "x")
    monkeypatch.setenv("GRIDIT_COLOUR", "red")
    with pytest.raises(InvalidSettings, match=r"GRIDIT_COLOUR.*GRIDIT_PORT.*GRIDIT_SLOTS"):
        settings.load()


def test_variables_that_models_read_themselves_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(engine_cache.VARIABLE, "/plans")
    monkeypatch.setenv(torch_engine.VARIABLE, "graphs")
    assert settings.load().engine_cache == Path("/plans")
    assert settings.load().torch_mode is settings.TorchMode.GRAPHS
