"""A net or an autoencoder as it was found: its files, its tensors, and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from models.checkpoint import anatomy, autoencoders, places, reading
from models.checkpoint.anatomy import Anatomy
from models.checkpoint.hub import Hub
from models.checkpoint.places import Place, Wanted
from models.checkpoint.reading import Checkpoint
from models.spec import AutoencoderSpec


@dataclass(frozen=True, slots=True)
class Net:
    """One net as it was found."""

    place: Place
    checkpoint: Checkpoint
    anatomy: Anatomy


@dataclass(frozen=True, slots=True)
class Vae:
    """An autoencoder as it was found."""

    place: Place
    spec: AutoencoderSpec
    tensors: Mapping[str, Tensor] = field(repr=False)


def find_net(wanted: Wanted, *, hub: Hub) -> Net:
    """One net: found, read, and its shapes understood."""
    place = places.find(wanted, hub=hub)
    checkpoint = reading.checkpoint(place)
    return Net(place, checkpoint, anatomy.read(checkpoint))


def find_vae(wanted: Wanted, *, scale: float | None, hub: Hub) -> Vae:
    """An autoencoder: found, read, and checked against its config and the scale of the nets."""
    place = places.find(wanted, hub=hub)
    spec, tensors = autoencoders.read(place, scale=scale)
    return Vae(place, spec, tensors)
