"""What can be wrong with a source of weights: each error says where, what was found, what is expected, what to do."""

from __future__ import annotations

from pydantic import ValidationError


class CheckpointError(ValueError):
    """A source of weights cannot be used."""

    def __init__(self, where: str, *, found: str, expected: str, remedy: str) -> None:
        super().__init__(f"{where}: found {found}, expected {expected}; {remedy}")

    @classmethod
    def of(cls, error: ValidationError, *, where: str, expected: str, remedy: str) -> CheckpointError:
        """What pydantic found wrong with values that were put together here."""
        each = [
            f"{'.'.join(map(str, one['loc']))} {one['msg'].removeprefix('Value error, ')}" for one in error.errors()
        ]
        return cls(where, found="; ".join(text.strip() for text in each), expected=expected, remedy=remedy)


class PickleRefused(CheckpointError):
    """A pickle wants to make something that is neither a tensor nor a Namespace; nothing of it was run."""

    def __init__(self, where: str, *, wanted: str) -> None:
        super().__init__(
            where,
            found=f"a pickle that asks for {wanted}",
            expected="tensors and argparse.Namespace alone",
            remedy="it was not run: trust it to nobody, or have its author save the tensors as safetensors",
        )


class HubError(CheckpointError):
    """The hub does not answer, or does not have what was asked for."""
