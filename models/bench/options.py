"""What the options of the benchmarks say, parsed; every refusal names the option, what was found and what there is."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from models import devices, engines
from models.bench.opening import plain
from models.bench.peers import Peer
from models.engine import NetName, Precision
from models.spec import Codec, Stage

ALL, NONE = "all", "none"
MOST_ROWS = 4096


class BadOption(ValueError):
    """An option that means nothing."""

    def __init__(self, option: str, found: str, expected: str) -> None:
        super().__init__(f"{option} {found!r} is not understood: say {expected}")


@dataclass(frozen=True, slots=True)
class Nets:
    """Which nets to run."""

    names: tuple[NetName, ...]

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages among them, the coarse one always: a bundle has it."""
        return tuple(stage for stage in Stage if stage in self.names or stage is Stage.COARSE)

    @property
    def halves(self) -> bool:
        """Whether there are halves of an autoencoder among them."""
        return any(isinstance(net, Codec) for net in self.names)


def nets_of(text: str, *, random: bool) -> Nets:
    """Names of nets; nothing: the coarse one of `random` shapes, else the stages."""
    if not text:
        return Nets((Stage.COARSE,) if random else tuple(Stage))
    known: dict[str, NetName] = {net.value: net for net in (*Stage, *Codec)}
    return Nets(tuple(known[name] for name in _names("--nets", text, tuple(known))))


def engines_of(text: str) -> tuple[str, ...]:
    """Names of engines, or all."""
    return engines.names() if text == ALL else _names("--engines", text, engines.names())


def precisions_of(text: str) -> tuple[Precision, ...]:
    """Names of precisions, or all."""
    names = tuple(precision.value for precision in Precision)
    return tuple(Precision(name) for name in (names if text == ALL else _names("--precisions", text, names)))


def plain_or(text: str, device: torch.device) -> tuple[Precision, ...]:
    """Names of precisions; nothing: what torch runs nets in on the device, but for its float32 on a GPU."""
    if text:
        return precisions_of(text)
    return tuple(one for one in plain(device) if device.type != devices.GPU or one is not Precision.FP32)


def peers_of(text: str) -> tuple[Peer, ...]:
    """Names of peers, all or none."""
    names = tuple(peer.value for peer in Peer)
    if text == NONE:
        return ()
    return tuple(Peer(name) for name in (names if text == ALL else _names("--peers", text, names)))


def numbers(option: str, text: str) -> tuple[int, ...]:
    """ "1,4,16" -> its numbers, ascending."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 0 < int(part) <= MOST_ROWS for part in parts):
        raise BadOption(option, text, f"whole numbers of 1 to {MOST_ROWS} with commas between, such as 1,4")
    return tuple(sorted({int(part) for part in parts}))


def _names(option: str, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(","))
    for name in found:
        if name not in known:
            raise BadOption(option, name, f"one or more of {', '.join(known)}, with commas between")
    return tuple(dict.fromkeys(found))
