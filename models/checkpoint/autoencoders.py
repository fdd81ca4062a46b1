"""An autoencoder in diffusers' layout, checked: its config read into a spec, its tensors against that config."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from models.checkpoint import reading
from models.checkpoint.errors import CheckpointError
from models.checkpoint.places import Place
from models.nn import autoencoder
from models.spec import AutoencoderSpec

PUBLISHED_SCALE = 0.18215
"""Of the latents that DiT's and GriDiT's nets were trained on; also what a config without one means."""
KIND = "AutoencoderKL"
FILE = "autoencoder.safetensors"

_NO_FILE_YET = "0" * 64
_TAKE_ANOTHER = "take an AutoencoderKL such as stabilityai/sd-vae-ft-mse"
_COPY_AGAIN = "copy both files again"
_SHOWN = 3


def read(place: Place, *, scale: float | None) -> tuple[AutoencoderSpec, dict[str, Tensor]]:
    """Spec (its digest that of no file yet) and tensors in today's names.

    `scale` is what the nets were trained with; None: as published. `CheckpointError` if the config has another.
    """
    config = _config(place)
    _check_scale(place, config, scale)
    tensors = autoencoder.current_names(reading.tensors(place))
    _check_tensors(place, config, tensors)
    blocks = config["block_out_channels"]
    assert isinstance(blocks, list)
    spec = AutoencoderSpec(
        file=FILE,
        sha256=_NO_FILE_YET,
        latent_channels=tensors["decoder.conv_in.weight"].shape[1],
        downsample=2 ** (len(blocks) - 1),
        scale=_number(config, "scaling_factor", PUBLISHED_SCALE),
        shift=_number(config, "shift_factor", 0.0),
        config={key: value for key, value in config.items() if not key.startswith("_") or key == "_class_name"},
    )
    return spec, tensors


def pixel_channels(tensors: Mapping[str, Tensor]) -> int:
    """Channels of the pictures it decodes to."""
    return len(tensors["decoder.conv_out.weight"])


def _config(place: Place) -> dict[str, object]:
    assert place.layout.config is not None, "autoencoders are only found beside their config"
    config = reading.json_object(place.folder / place.layout.config)
    kind = config.get("_class_name")
    if kind != KIND:
        where = f"{place.name}: _class_name"
        raise CheckpointError(where, found=repr(kind), expected=repr(KIND), remedy=_TAKE_ANOTHER)
    for field in ("latents_mean", "latents_std"):
        if config.get(field) is not None:
            where = f"{place.name}: {field}"
            raise CheckpointError(where, found="a value per channel", expected="none", remedy=_TAKE_ANOTHER)
    if not isinstance(config.get("block_out_channels"), list):
        where, found = f"{place.name}: block_out_channels", repr(config.get("block_out_channels"))
        raise CheckpointError(where, found=found, expected="a list", remedy="copy the config again")
    return config


def _check_scale(place: Place, config: Mapping[str, object], wished: float | None) -> None:
    scale, expected = _number(config, "scaling_factor", PUBLISHED_SCALE), wished or PUBLISHED_SCALE
    if scale != expected:
        raise CheckpointError(
            f"{place.name}: scaling_factor",
            found=str(scale),
            expected=f"{expected}, which the nets were trained with",
            remedy=f"take the autoencoder that they were trained with; if it is this one, say --latent-scale {scale}",
        )


def _check_tensors(place: Place, config: Mapping[str, object], tensors: Mapping[str, Tensor]) -> None:
    try:
        expected = autoencoder.shapes(config)
    except autoencoder.DiffusersMissing:
        raise
    except Exception as error:  # the library trusts its configs: a wrong one can fail anywhere
        found, remedy = f"a config that builds nothing ({error})", "copy the config again from where it came from"
        raise CheckpointError(place.name, found=found, expected=f"that of an {KIND}", remedy=remedy) from error
    found_shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    wrong = sorted(k for k in expected.keys() | found_shapes.keys() if expected.get(k) != found_shapes.get(k))
    if wrong:
        told = [f"{k} {found_shapes.get(k, 'missing')}, not {expected.get(k, 'there')}" for k in wrong[:_SHOWN]]
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        expectation = f"the {len(expected)} tensors of its config"
        raise CheckpointError(place.name, found="; ".join(told) + more, expected=expectation, remedy=_COPY_AGAIN)


def _number(config: Mapping[str, object], field: str, default: float) -> float:
    value = config.get(field)
    return float(value) if isinstance(value, int | float) else default
