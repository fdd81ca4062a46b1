"""From options to a recipe: who is heard first, what goes together, and how a run goes on with nothing said again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from models import bundle as bundles
from models.data.errors import BadData
from models.spec import KnownRows, Prediction, ScheduleName, Stage
from models.train import wishes
from models.train.commands import app
from models.train.recipe import PRESETS, BadRecipe, Recipe
from models.train.session import OtherRecipe, Session
from models.train.wishes import BadWish, NoData
from tests.footage import moving, write_images

TINY = ["--coarse-size", "4", "--refined-size", "8", "--grid", "2", "--patch", "2", "--width", "16", "--depth", "1"]
SMALL = [*TINY, "--heads", "2", "--batch", "2", "--total-steps", "2"]


def made(stage: Stage = Stage.COARSE, **options: object) -> Recipe:
    """A recipe for one procedural domain."""
    return wishes.recipe("own", wishes.settled(stage, options) | {"domains": ("sky",)})


def train(*arguments: str) -> Any:
    """Run the command; an error of the user's is raised as it is."""
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for index in range(3):
        write_images(tmp_path / "data" / f"clip{index}", moving(5, height=16, width=16, seed=index))
    return tmp_path / "data"


def test_left_to_the_usual_it_is_a_small_net() -> None:
    coarse, refine = made(), made(Stage.REFINE)
    for recipe in (coarse, refine):
        shipped = PRESETS[f"demo-{recipe.stage}"]
        assert (recipe.width, recipe.depth, recipe.patch) == (shipped.width, shipped.depth, shipped.patch)
    assert (coarse.predicted, refine.predicted) == (Prediction.X, Prediction.RESIDUAL)
    assert coarse.known_rows is KnownRows.CLEAN_PREFIX


def test_options_go_before_a_file_and_a_file_before_a_preset(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("depth = 3\nheads = 4\nema = 0.9\n")
    settings = wishes.settled(
        Stage.COARSE, {"heads": 2, "mirror": None}, preset="DiT-S/2", config=tmp_path / "own.toml"
    )
    recipe = wishes.recipe("own", settings | {"domains": ("sky",)})
    assert (recipe.width, recipe.patch, recipe.depth, recipe.heads) == (384, 2, 3, 2)
    assert (recipe.learning_rate, recipe.ema, recipe.mirror) == (1e-4, 0.9, 0.0)
    (tmp_path / "own.json").write_text(json.dumps({"depth": 3}))
    assert wishes.settled(Stage.COARSE, {}, config=tmp_path / "own.json")["depth"] == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("depth = ", "config '.*own.toml' is not possible: a file of TOML or JSON"),
        ("depht = 3", "config 'depht' is not possible: the fields are name, stage"),
    ],
)
def test_a_file_that_says_nothing_sensible_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(BadWish, match=message):
        wishes.settled(Stage.COARSE, {}, config=tmp_path / "own.toml")


@pytest.mark.parametrize(
    ("stage", "options", "message"),
    [
        (Stage.COARSE, {"coarse_size": 18}, "^coarse_size 18 is not a multiple of patch 4: take 16$"),
        (Stage.REFINE, {"refined_size": 100}, "^refined_size 100 is not a multiple of patch 8: take 96$"),
        (Stage.COARSE, {"heads": 3}, "^width 160 is not a multiple of heads 3 and of 8"),
        (Stage.COARSE, {"grid": 9}, "^grid: Input should be less than or equal to 8$"),
        (Stage.COARSE, {"prediction": "residual"}, "only the refine net has what it is added to"),
        (Stage.COARSE, {"learned_variance": True}, "^learned_variance with schedule flow: only with linear$"),
        (Stage.COARSE, {"batch": 4, "accumulate": 8}, "^batch 4 has fewer rows than 1 shards x 8 rounds"),
        (Stage.REFINE, {"refined_size": 4, "patch": 2, "degradation": "published"}, "^refined_size 4: at least 8 with"),
        (Stage.COARSE, {"width": "wide"}, "^width: Input should be a valid integer"),
    ],
)
def test_what_does_not_go_together_is_told(stage: Stage, options: Mapping[str, object], message: str) -> None:
    with pytest.raises(BadRecipe, match=message):
        made(stage, **options)


@pytest.mark.parametrize("grid", range(2, 9))
@pytest.mark.parametrize("prediction", [Prediction.EPSILON, Prediction.V, Prediction.X, Prediction.FLOW])
def test_every_grid_and_prediction_makes_a_net(grid: int, prediction: Prediction) -> None:
    recipe = made(grid=grid, prediction=prediction, coarse_size=12, schedule="linear", learned_variance=True)
    assert recipe.net.input_size == 12 * grid
    assert (recipe.net.out_channels, recipe.net.time_scale) == (6, 1.0)
    assert recipe.net.ancestral is (prediction is Prediction.EPSILON)
    assert recipe.schedule is ScheduleName.LINEAR


def test_names_become_those_of_bundles() -> None:
    assert wishes.run_name("My Videos (2024)") == "my-videos-2024"
    with pytest.raises(BadWish, match="name '___' is not possible: it needs a letter or a digit"):
        wishes.run_name("___")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((), NoData, "no data: name a folder of sequences"),
        (("--name", "fresh"), NoData, "no data: name a folder of sequences"),
        (("--data", "x", "--domains", "sky"), BadWish, "choose --data or --domains"),
        (("--domains", "fog"), BadWish, "domains 'fog' is not possible: there are balls, lava, scan, sky"),
        (("--data", "x", "--window", "40"), BadData, "window: found '40', expected LEVEL,WIDTH"),
        (("--data", "x", "--window", "40,0"), BadData, "with a width of more than 0"),
        (("--data", "x", "--channels", "2"), BadWish, r"channels 2 is not possible: 1 \(grey\) or 3"),
    ],
)
def test_calls_that_cannot_be_are_refused(
    tmp_path: Path, arguments: tuple[str, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train("coarse", "--runs", str(tmp_path), *arguments)
    assert not list(tmp_path.iterdir())


def test_a_recipe_that_ships_is_fixed(tmp_path: Path) -> None:
    with pytest.raises(BadWish, match="batch 8 is not possible: demo-coarse is fixed"):
        train("demo-coarse", "--runs", str(tmp_path), "--batch", "8")


def test_a_run_goes_on_by_its_name_and_refuses_to_change(data: Path, tmp_path: Path) -> None:
    runs = ["--runs", str(tmp_path / "runs")]
    train("coarse", "--data", str(data), *runs, *SMALL, "--steps", "1")
    data.rename(tmp_path / "gone")
    with pytest.raises(OtherRecipe, match="holds a run whose recipe differs in batch"):
        train("coarse", "--name", "data", *runs, "--batch", "4")
    train("coarse", "--name", "data", *runs)
    assert Session(tmp_path / "runs" / "data-coarse").reopen().step == 2


def test_one_run_or_two_become_a_bundle(data: Path, tmp_path: Path) -> None:
    common = ["--data", str(data), "--runs", str(tmp_path / "runs"), *SMALL, "--bundle", str(tmp_path / "bundle")]
    train("coarse", *common, "--license", "MIT")
    spec = bundles.load(tmp_path / "bundle").spec
    assert (spec.stages, spec.refined_size, spec.license, spec.name) == ((Stage.COARSE,), 4, "MIT", "data")
    train("refine", *common, "--degradation", "published")
    assert bundles.load(tmp_path / "bundle").spec.refined_size == 8


def test_volumes_of_sixteen_bits_become_a_bundle_of_one_channel(tmp_path: Path) -> None:
    (tmp_path / "ct").mkdir()
    np.save(tmp_path / "ct" / "one.npy", np.linspace(-1000, 2000, 6 * 8 * 8).reshape(6, 8, 8).astype(np.int16))
    window = ["--window", "-500,1000", "--bundle", str(tmp_path / "bundle")]
    train("coarse", "--data", str(tmp_path / "ct"), "--runs", str(tmp_path / "runs"), *SMALL, *window)
    spec = bundles.load(tmp_path / "bundle").spec
    assert spec.channels == spec.nets[Stage.COARSE].out_channels == 1
    recipe = Session(tmp_path / "runs" / "ct-coarse").recipe()
    assert recipe is not None
    assert recipe.value_range == (-1000.0, 0.0)
