"""A bundle from published weights: a coarse net, the net that refines if there is one, their autoencoder if they have.

Everything is read and checked before anything is written, and the bundle is written aside.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from models import bundle as bundles
from models.bundle import Bundle
from models.checkpoint import assembly, parts
from models.checkpoint.assembly import Wishes
from models.checkpoint.errors import CheckpointError
from models.checkpoint.hub import Hub
from models.checkpoint.layout import Part
from models.checkpoint.parts import Net, Vae
from models.checkpoint.places import Wanted
from models.spec import Stage


@dataclass(frozen=True, slots=True)
class Sources:
    """What the user named."""

    coarse: Wanted
    refine: Wanted | None = None
    autoencoder: Wanted | None = None


def import_bundle(
    sources: Sources, to: Path, *, wishes: Wishes, dtype: torch.dtype | None = None, hub: Hub | None = None
) -> Bundle:
    """Make the bundle `to`, which must not exist. `CheckpointError` says what is wrong and what to do about it.

    `dtype` is what the weights are stored in; None: as they are.
    """
    if to.exists():
        remedy = "name another folder, or remove it first"
        raise CheckpointError(str(to), found="something there", expected="a new folder", remedy=remedy)
    hub = hub or Hub()
    nets = {Stage.COARSE: parts.find_net(sources.coarse, hub=hub)}
    if sources.refine is not None:
        nets[Stage.REFINE] = parts.find_net(sources.refine, hub=hub)
    vae = _autoencoder(sources, nets[Stage.COARSE], wishes=wishes, hub=hub)
    spec = assembly.spec_of(nets, vae, wishes=wishes)
    return bundles.write(
        to,
        spec=spec,
        nets={stage: net.checkpoint.tensors for stage, net in nets.items()},
        autoencoder=vae.tensors if vae else None,
        dtype=dtype,
    )


def _autoencoder(sources: Sources, coarse: Net, *, wishes: Wishes, hub: Hub) -> Vae | None:
    """The one that was named; else the one of the pipeline that the coarse net is from, where it needs one."""
    wanted = sources.autoencoder
    if wanted is None:
        if not coarse.anatomy.latent():
            return None
        if not (coarse.place.layout.config or "").startswith(f"{Part.NET}/"):
            raise CheckpointError(
                coarse.place.name,
                found=f"a net that draws {coarse.anatomy.drawn(None)} channels, which are latents",
                expected="their autoencoder too",
                remedy="name it with --vae, such as --vae stabilityai/sd-vae-ft-mse",
            )
        wanted = Wanted(sources.coarse.source, Part.AUTOENCODER, revision=sources.coarse.revision)
    return parts.find_vae(wanted, scale=wishes.latent_scale, hub=hub)
