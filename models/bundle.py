"""A bundle on disk: a directory with `bundle.json` and one safetensors file per net or autoencoder, under one hash.

The hash covers everything that decides what the bundle draws: the spec, but for its description and its gate figures,
and through the spec the digest of each weights file. Reading the spec touches no weights. Weights may be stored in
half precision; a net is always handed out in float32.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.nn import autoencoder as autoencoders
from models.nn.dit import DiT
from models.nn.unmade import unmade
from models.spec import AutoencoderSpec, BundleSpec, Codec, NetSpec, Stage

FILE = "bundle.json"

_OUTSIDE_THE_HASH = ("description", "gate")
_GET_IT_AGAIN = "copy the bundle again from where it came from"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a bundle."""

    where: str
    """A file, a field or a tensor."""
    found: str
    expected: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: found {self.found}, expected {self.expected}; {self.remedy}"


class BundleError(ValueError):
    """A directory is not a usable bundle; the message names every problem found, and its remedy."""

    def __init__(self, path: Path, *problems: Problem) -> None:
        super().__init__(f"bundle {path}: " + "\n".join(str(problem) for problem in problems))
        self.path, self.problems = path, problems


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose files were found to be what its spec says."""

    path: Path
    spec: BundleSpec
    hash: str

    def state_dict(self, stage: Stage) -> dict[str, Tensor]:
        """A net's tensors as stored."""
        return load_file(self.path / self.spec.nets[stage].file)

    def net(self, stage: Stage) -> DiT:
        """A new copy of a net, float32, in evaluation mode, on the CPU."""
        with unmade():
            net = DiT(self.spec.nets[stage])
        net.load_state_dict({key: tensor.float() for key, tensor in self.state_dict(stage).items()}, assign=True)
        return net.eval().requires_grad_(False)

    def codec(self, half: Codec) -> autoencoders.Encoder | autoencoders.Decoder:
        """A new copy of half of the autoencoder, which the bundle must have: float32, evaluation mode, on the CPU."""
        vae = self.spec.autoencoder
        assert vae is not None, "the bundle works on pixels"
        return autoencoders.load(half, config=vae.config, state=load_file(self.path / vae.file))


def load(path: Path) -> Bundle:
    """Read and check everything: the spec, its hash, the digest of every file, the name and shape of every tensor."""
    spec, recorded = _read(path)
    actual = hash_of(spec)
    if recorded != actual:
        remedy = f"do not edit {FILE} by hand: {_GET_IT_AGAIN}, or write it again with models.bundle.write"
        raise BundleError(path, Problem(f"{FILE}: hash", recorded, actual, remedy))
    problems = [problem for weights in _weights(spec) for problem in _problems(path, weights)]
    if problems:
        raise BundleError(path, *problems)
    return Bundle(path, spec, actual)


def read_spec(path: Path) -> BundleSpec:
    """The spec alone; no weights are looked at, and the hash is not checked."""
    return _read(path)[0]


def hash_of(spec: BundleSpec) -> str:
    """SHA-256 over the canonical JSON of all that decides what is drawn."""
    content = spec.model_dump(mode="json", exclude=set(_OUTSIDE_THE_HASH))
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write(
    path: Path,
    *,
    spec: BundleSpec,
    nets: Mapping[Stage, Mapping[str, Tensor]],
    autoencoder: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype | None = torch.float16,
) -> Bundle:
    """Write a bundle aside, then move it to `path`, replacing what is there. The spec's file digests are filled in.

    `autoencoder`: the tensors of the one that the spec describes. `dtype` None: tensors are stored as they are.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside, old = (path.with_name(f".{path.name}.{kind}.{os.getpid()}") for kind in ("new", "old"))
    _sweep(path)
    try:
        aside.mkdir()
        digests = {stage: _write_net(aside / net.file, nets[stage], dtype=dtype) for stage, net in spec.nets.items()}
        written = {stage: net.model_copy(update={"sha256": digests[stage]}) for stage, net in spec.nets.items()}
        spec = spec.model_copy(update={"nets": written})
        if spec.autoencoder is not None:
            digest = _write_net(aside / spec.autoencoder.file, autoencoder or {}, dtype=dtype)
            vae = spec.autoencoder.model_copy(update={"sha256": digest})
            spec = spec.model_copy(update={"autoencoder": vae})
        _write_spec(aside, spec)
        load(aside)
        if path.exists():
            path.rename(old)
        aside.rename(path)
    finally:
        for folder in (aside, old):
            shutil.rmtree(folder, ignore_errors=True)
    return Bundle(path, spec, hash_of(spec))


def annotate(bundle: Bundle, *, gate: Mapping[str, object]) -> Bundle:
    """Write down the figures of the quality gate; the hash stays."""
    spec = bundle.spec.model_copy(update={"gate": dict(gate)})
    _write_spec(bundle.path, spec)
    return Bundle(bundle.path, spec, bundle.hash)


def _sweep(path: Path) -> None:
    """Remove what writers of this bundle left that were killed."""
    for left in path.parent.glob(f".{path.name}.new.*"):
        writer = left.name.rpartition(".")[2]
        if writer.isdecimal() and not _alive(int(writer)):
            shutil.rmtree(left, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is there, but another user's
    return True


def _read(path: Path) -> tuple[BundleSpec, str]:
    file = path / FILE
    if not file.is_file():
        raise BundleError(path, Problem(FILE, "no such file", "a bundle's directory", "check the path"))
    try:
        content = dict(json.loads(file.read_text(encoding="utf-8")))
        recorded = str(content.pop("hash", "nothing"))
        return BundleSpec.model_validate(content), recorded
    except ValidationError as error:
        raise BundleError(path, *_field_problems(error)) from error
    except (ValueError, TypeError) as error:
        raise BundleError(path, Problem(FILE, f"no JSON object ({error})", "a JSON object", _GET_IT_AGAIN)) from error


def _field_problems(error: ValidationError) -> Iterator[Problem]:
    for one in error.errors():
        field = ".".join(str(part) for part in one["loc"]) or "the whole"
        found = "nothing" if one["type"] == "missing" else repr(one["input"])
        found = found if len(found) <= 80 else f"{found[:77]}..."
        yield Problem(f"{FILE}: {field}", found, one["msg"], f"correct it, or {_GET_IT_AGAIN}")


def _weights(spec: BundleSpec) -> Iterator[NetSpec | AutoencoderSpec]:
    yield from spec.nets.values()
    if spec.autoencoder is not None:
        yield spec.autoencoder


def _problems(path: Path, net: NetSpec | AutoencoderSpec) -> Iterator[Problem]:
    file = path / net.file
    if not file.is_file():
        yield Problem(net.file, "no such file", "the weights that the spec names", _GET_IT_AGAIN)
        return
    digest = _digest(file)
    if digest != net.sha256:
        yield Problem(f"{net.file}: sha256", digest, net.sha256, f"the file is damaged or another's: {_GET_IT_AGAIN}")
    try:
        yield from _tensor_problems(file, net)
    except SafetensorError as error:
        yield Problem(net.file, f"no safetensors file ({error})", "a safetensors file", _GET_IT_AGAIN)


def _tensor_problems(file: Path, net: NetSpec | AutoencoderSpec) -> Iterator[Problem]:
    found, expected = _stored_shapes(file), _expected_shapes(net)
    remedy = "the weights do not belong to this spec: correct the spec, or export the net again"
    for key in sorted(expected.keys() - found.keys()):
        yield Problem(f"{net.file}: {key}", "no such tensor", f"shape {expected[key]}", remedy)
    for key in sorted(found.keys() - expected.keys()):
        yield Problem(f"{net.file}: {key}", f"shape {found[key]}", "no such tensor", remedy)
    for key in sorted(found.keys() & expected.keys()):
        if found[key] != expected[key]:
            yield Problem(f"{net.file}: {key}", f"shape {found[key]}", f"shape {expected[key]}", remedy)


def _stored_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    with safe_open(file, framework="pt") as stored:
        return {key: tuple(stored.get_slice(key).get_shape()) for key in stored.keys()}  # noqa: SIM118


def _expected_shapes(net: NetSpec | AutoencoderSpec) -> dict[str, tuple[int, ...]]:
    if isinstance(net, AutoencoderSpec):
        return autoencoders.shapes(net.config)
    with unmade():
        return {key: tuple(tensor.shape) for key, tensor in DiT(net).state_dict().items()}


def _write_net(file: Path, tensors: Mapping[str, Tensor], *, dtype: torch.dtype | None) -> str:
    stored = {key: tensor.detach().to(dtype).contiguous() for key, tensor in sorted(tensors.items())}
    broken = [key for key, tensor in stored.items() if not math.isfinite(float(tensor.float().abs().sum()))]
    if broken:
        held = "no numbers" if dtype is None else f"values that {dtype} cannot hold"
        found, remedy = held, "store it in another precision, or train again"
        raise BundleError(file.parent, *(Problem(f"{file.name}: {key}", found, "finite", remedy) for key in broken))
    save_file(stored, file)
    file.chmod(0o644)  # the library keeps it from everybody else
    return _digest(file)


def _write_spec(path: Path, spec: BundleSpec) -> None:
    content = spec.model_dump(mode="json") | {"hash": hash_of(spec)}
    aside = path / f".{FILE}.{os.getpid()}"
    aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    aside.replace(path / FILE)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
