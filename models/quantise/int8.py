"""8-bit integers for CPUs: nncf puts them into an OpenVINO model, with scales from a bundle's own rows.

The first and the last layer stay in float32, and the second of each MLP. The share of the difficulty that moves from
activations to weights was chosen by the error on rows of other seeds than the scales were made from; nncf's own choice
lets the ranges of activations fit the calibration so closely that rows of a kind it has not seen come out several
times worse.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import torch

from models.engine import EngineUnavailable, Rows
from models.engines.openvino import convert, library
from models.graph import MODULATION, Graph, X

ALPHA = 0.5
"""Share of the smoothing of activations that weights have to bear (Xiao et al. 2022)."""
UNTOUCHED = (
    (".*x_embedder.*", ".*final_layer.*", ".*fc2.*"),
    (".*x_embedder.*", ".*final_layer.*", ".*fc2.*", ".*qkv.*"),
)
"""Names of operations that stay in float32, as regular expressions: the bold choice, then a careful one for nets whose
pictures do not bear it. The second layers of the MLPs cost most: left out, the demo's refine net errs by .026 instead
of .043; of its coarse net that is the attention's first layer."""
REMEDY = "pip install 'gridit-serve[int8]'"


def settings(untouched: Sequence[str]) -> str:
    """What decides the scales beside the rows."""
    return f"nncf {metadata.version('nncf')} alpha {ALPHA} but {tuple(untouched)}"


def available() -> None:
    """`EngineUnavailable` if a package is missing."""
    library()
    if find_spec("nncf") is None:
        raise EngineUnavailable(f"precision int8: nncf is not installed; {REMEDY}, or set GRIDIT_PRECISION=fp32")


def quantised(graph: Graph, rows: Rows, *, untouched: Sequence[str] = UNTOUCHED[0]) -> Any:
    """The `openvino.Model` of a graph of a DiT with its linear layers in integers; the graph must live as long."""
    available()
    model = _folded(convert(graph))
    assert rows.modulation is not None
    pairs = zip(torch.split(rows.x, 1), torch.split(rows.modulation, 1), strict=True)
    with _silence():
        import nncf

        nncf.set_log_level(logging.ERROR)
        dataset = nncf.Dataset([{X: x.numpy(), MODULATION: modulation.numpy()} for x, modulation in pairs])
        return nncf.quantize(
            model,
            dataset,
            subset_size=len(rows.x),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(patterns=list(untouched), validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=ALPHA)
            ),
        )


def _folded(model: Any) -> Any:
    """The same with constants computed: a weight behind a reshape would be taken for one of the wrong shape."""
    library()
    from openvino.passes import ConstantFolding, Manager

    manager = Manager()
    manager.register_pass(ConstantFolding())
    manager.run_passes(model)
    return model


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """It draws bars on standard output, which is not its own here."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
