"""Torch pickles, read without running anything of theirs: tensors, plain containers and `argparse.Namespace` alone."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch

from models.checkpoint.errors import CheckpointError, PickleRefused

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")

_WANTED = re.compile(r"GLOBAL (?P<name>[\w.]+)")
_GET_IT_AGAIN = "copy it again from where it came from"


def read(file: Path) -> Mapping[str, object]:
    """The mapping that a pickle holds; its tensors stay in the file until they are used, where its format allows it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on the pickle's protocol
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = _load(file)
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        expected = "a state dict, or a mapping with one"
        remedy = "save the net's state_dict()"
        raise CheckpointError(file.name, found=f"a {type(content).__name__}", expected=expected, remedy=remedy)
    return content


def _load(file: Path) -> object:
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        raise _refusal(file, error) from error
    except Exception as error:  # a damaged file can fail in any way: it is data, not code
        found = f"no readable torch file ({_short(error)})"
        raise CheckpointError(
            file.name, found=found, expected="a pickle by torch.save", remedy=_GET_IT_AGAIN
        ) from error


def _refusal(file: Path, error: Exception) -> CheckpointError:
    wanted = _WANTED.search(str(error))
    return PickleRefused(file.name, wanted=wanted["name"] if wanted else "more than torch.load allows to weights")


def _short(error: Exception) -> str:
    return (str(error).split("\n")[0].split(". ")[0] or type(error).__name__)[:120]
