"""FID and FVD: the distance has closed forms, and the nets that users name are shown what they expect.

The nets here are toys in TorchScript made on the spot, whose features are worked out in NumPy beside them.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.evaluate.distances import gaussian_frechet
from models.evaluate.featurenet import FID, FVD, Convention, FeatureNet, FeatureNetError, Values
from models.evaluate.frechet import TooFewSamples, compare

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

Doubles = NDArray[np.float64]


def samples_of(mean: Doubles, covariance: Doubles, *, count: int, seed: int = 0) -> Doubles:
    """Samples whose own mean and unbiased covariance are exactly these."""
    raw = np.random.default_rng(seed).normal(size=(count, len(mean)))
    raw -= raw.mean(axis=0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(raw.T @ raw / (count - 1)).T)
    return np.asarray(white @ np.linalg.cholesky(covariance).T + mean)


@pytest.mark.parametrize("count", [5, 400])
def test_frechet_of_gaussians_on_common_axes_has_a_closed_form(count: int) -> None:
    one, other, shift = np.array([1.0, 4.0, 0.25]), np.array([9.0, 1.0, 0.25]), np.array([1.0, -2.0, 0.5])
    expected = float((shift**2).sum() + ((np.sqrt(one) - np.sqrt(other)) ** 2).sum())
    real, drawn = (
        samples_of(np.zeros(3), np.diag(one), count=count),
        samples_of(shift, np.diag(other), count=count, seed=1),
    )
    assert gaussian_frechet(real, drawn) == pytest.approx(expected)


def test_frechet_of_any_two_gaussians_of_two_dimensions_has_a_closed_form() -> None:
    one, other = np.array([[2.0, 0.7], [0.7, 1.0]]), np.array([[0.5, -0.3], [-0.3, 3.0]])
    product = one @ other
    root_trace = np.sqrt(np.trace(product) + 2.0 * np.sqrt(np.linalg.det(product)))
    expected = float(np.trace(one) + np.trace(other) - 2.0 * root_trace)
    real, drawn = (samples_of(np.zeros(2), each, count=50, seed=seed) for seed, each in enumerate((one, other)))
    assert gaussian_frechet(real, drawn) == pytest.approx(expected)


def test_frechet_of_few_samples_in_many_dimensions_is_that_of_the_plane_they_lie_in() -> None:
    rng = np.random.default_rng(0)
    real, drawn = rng.normal(size=(6, 4)), rng.normal(size=(9, 4)) * 2.0
    turn, _ = np.linalg.qr(rng.normal(size=(500, 4)))
    assert gaussian_frechet(real @ turn.T, drawn @ turn.T) == pytest.approx(gaussian_frechet(real, drawn))
    assert gaussian_frechet(drawn, real) == pytest.approx(gaussian_frechet(real, drawn))
    assert gaussian_frechet(real, real) == pytest.approx(0.0, abs=1e-9)


class Colours(torch.nn.Module):
    """Mean colour of an image or a clip; the features are asked for, as the published files have it."""

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        flat = x.float().flatten(2).mean(2)
        return flat if return_features else flat * 0.0


class Ready(torch.nn.Module):
    """Says what it was shown: side, frames, least and greatest value; refuses to scale by itself."""

    def forward(self, x: Tensor, rescale: bool = True, resize: bool = True) -> Tensor:
        assert not rescale
        assert not resize
        shown = torch.tensor([float(x.shape[-1]), float(x.shape[-3]), float(x.min()), float(x.max())])
        return shown.expand(x.shape[0], 4)


class Wrong(torch.nn.Module):
    """An answer that is no row of features for each image."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float()


class Broken(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float().flatten(1) @ torch.ones(7, 2)


class Endless(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float().flatten(2).mean(2) / 0.0


def saved(net: torch.nn.Module, folder: Path) -> Path:
    path = folder / f"{type(net).__name__}.pt"
    torch.jit.save(torch.jit.script(net), path)
    return path


def frames(count: int, *, size: int = 12) -> NDArray[np.uint8]:
    made = np.random.default_rng(count).integers(0, 256, (count, size, size, 3)).astype(np.uint8)
    made[:, 0, :2] = [[0] * 3, [255] * 3]
    return made


def test_single_frames_are_shown_as_bytes_every_so_often(tmp_path: Path) -> None:
    net, shown = FeatureNet(saved(Colours(), tmp_path), FID), frames(70)
    np.testing.assert_allclose(net.features(shown), shown[:: FID.stride].mean(axis=(1, 2)), rtol=1e-5)


def test_clips_follow_one_another_and_what_is_left_over_is_left_out(tmp_path: Path) -> None:
    convention = replace(FVD, size=None, clip=8, values=Values.BYTES)
    net, shown = FeatureNet(saved(Colours(), tmp_path), convention), frames(19)
    expected = shown[:16].reshape(2, 8, 12, 12, 3).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(net.features(shown), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("convention", "expected"),
    [
        (Convention(Values.BYTES, size=None, clip=None), (12, 3, 0, 255)),
        (Convention(Values.UNIT, size=None, clip=None), (12, 3, 0, 1)),
        (Convention(Values.SIGNED, size=None, clip=4), (12, 4, -1, 1)),
    ],
)
def test_a_net_is_shown_what_its_convention_says(
    convention: Convention, expected: tuple[float, ...], tmp_path: Path
) -> None:
    found = FeatureNet(saved(Ready(), tmp_path), convention).features(frames(4))
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


@pytest.mark.parametrize("clip", [None, 4])
def test_frames_are_scaled_where_that_is_asked(clip: int | None, tmp_path: Path) -> None:
    grey = np.full((4, 12, 12, 3), 100, dtype=np.uint8)
    found = FeatureNet(saved(Ready(), tmp_path), Convention(Values.BYTES, size=30, clip=clip)).features(grey)
    np.testing.assert_allclose(found[0], (30, clip or 3, 100, 100))


@pytest.mark.parametrize(
    ("net", "message"),
    [(Wrong(), "answers (4, 3, 12, 12), expected are 4 rows"), (Broken(), "fails on input"), (Endless(), "not finite")],
)
def test_a_net_that_gives_no_features_is_refused(net: torch.nn.Module, message: str, tmp_path: Path) -> None:
    loaded = FeatureNet(saved(net, tmp_path), replace(FID, stride=1))
    with pytest.raises(FeatureNetError) as caught:
        loaded.features(frames(4))
    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_what_is_no_torchscript_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "weights.pt")
    (tmp_path / "text.pt").write_text("hello")
    for name, message in (("weights.pt", "no TorchScript"), ("text.pt", "no TorchScript"), ("none.pt", "no such file")):
        with pytest.raises(FeatureNetError, match=message):
            FeatureNet(tmp_path / name, FID)


def test_sequences_shorter_than_a_clip_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FeatureNetError, match="clips have 16 frames, the sequences only 15"):
        FeatureNet(saved(Colours(), tmp_path), FVD).features(frames(15))


def test_a_report_names_the_net_by_its_digest(tmp_path: Path) -> None:
    path = saved(Colours(), tmp_path)
    facts = FeatureNet(path, FVD).facts()
    assert facts["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (facts["values"], facts["size"], facts["clip"]) == ("signed", 224, 16)


def test_a_distance_from_few_samples_says_so() -> None:
    many = np.random.default_rng(0).normal(size=(40, 3))
    (sure,) = compare({"FID": many[:10] + 2.0}, {"FID": many[10:]}, {"FID": many[:10]})
    assert sure.caution == ""
    assert sure.value > sure.real
    (unsure,) = compare({"FID": many[:3]}, {"FID": many[10:]}, {"FID": many[:10]})
    assert "3 for 3 features" in unsure.caution
    with pytest.raises(TooFewSamples, match="FID: 1 sample of features, at least 2"):
        compare({"FID": many[:1]}, {"FID": many[10:]}, {"FID": many[:10]})
