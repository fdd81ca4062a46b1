"""Training: a run that is killed and resumed is the unbroken run, bit for bit; and it learns."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch

from models import bundle as bundles
from models.engine import Precision
from models.media import png
from models.spec import Stage
from models.train import batches
from models.train import data as material
from models.train.assemble import Mismatch, assemble
from models.train.data import Data
from models.train.loss import Objective
from models.train.positions import frame_aware
from models.train.preview import preview
from models.train.recipe import PRESETS, Plan, Recipe
from models.train.run import Diverged, Training, run
from models.train.session import Budget, Cadence, NoRun, OtherRecipe, Session

STEPS = 6


def tiny_recipe(stage: Stage, *, steps: int = STEPS) -> Recipe:
    return Recipe(
        name=f"tiny-{stage}", stage=stage, domains=("lava", "sky"), patch=2, width=16, depth=1, heads=2, grid=2,
        coarse_size=4, refined_size=8, sequences=4, clip_frames=6, batch=4, steps=steps, learning_rate=1e-2, warm_up=2,
        time_mean=0.5, low_noise=0.04,
    )  # fmt: skip


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(params=list(Stage))
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return tiny_recipe(request.param)


@pytest.fixture
def data(recipe: Recipe, clips: Path) -> Data:
    return material.load(recipe, clips)


def test_killed_and_resumed_is_the_unbroken_run_bit_for_bit(recipe: Recipe, data: Data, tmp_path: Path) -> None:
    unbroken = Training.fresh(recipe)
    losses = [step.loss for step in run(unbroken, data=data)]

    broken = Training.fresh(recipe)
    first = [step.loss for step in islice(run(broken, data=data), 2)]
    broken.save(tmp_path / "state.pt")
    resumed = Training.restored(tmp_path / "state.pt")
    rest = [step.loss for step in run(resumed, data=data)]

    assert first + rest == losses
    assert resumed.step == unbroken.step == STEPS
    assert_same(resumed.state_dict(), unbroken.state_dict())


def test_threads_change_no_bit(recipe: Recipe, data: Data) -> None:
    one, two = Training.fresh(recipe), Training.fresh(recipe)
    assert [step.loss for step in run(one, data=data)] == [step.loss for step in run(two, data=data, threads=2)]
    assert_same(one.state_dict(), two.state_dict())


def test_the_loss_falls(clips: Path) -> None:
    recipe = tiny_recipe(Stage.REFINE, steps=80)
    losses = [step.loss for step in run(Training.fresh(recipe), data=material.load(recipe, clips))]
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])


def test_rounds_of_accumulation_change_nothing_but_rounding(clips: Path) -> None:
    plain = tiny_recipe(Stage.COARSE)
    data = material.load(plain, clips)
    expected = [step.loss for step in run(Training.fresh(plain), data=data)]
    for rounds in (3, 4):
        recipe = plain.model_copy(update={"shards": 1, "accumulate": rounds})
        losses = [step.loss for step in run(Training.fresh(recipe), data=data)]
        assert losses == pytest.approx(expected, rel=1e-4)


def test_bfloat16_trains_and_resumes_as_float32_does(clips: Path, tmp_path: Path) -> None:
    plain = tiny_recipe(Stage.REFINE, steps=60)
    recipe = plain.model_copy(update={"precision": Precision.BF16})
    data = material.load(recipe, clips)
    training = Training.fresh(recipe)
    losses = [step.loss for step in islice(run(training, data=data), 30)]
    training.save(tmp_path / "state.pt")
    resumed = Training.restored(tmp_path / "state.pt")
    losses += [step.loss for step in run(resumed, data=data)]
    unbroken = [step.loss for step in run(Training.fresh(recipe), data=data)]
    assert losses == unbroken
    assert losses != [step.loss for step in run(Training.fresh(plain), data=data)], "it computes in another precision"
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])
    assert all(parameter.dtype is torch.float32 for parameter in resumed.net.parameters())


def test_an_iterator_that_is_closed_saves(recipe: Recipe, data: Data, tmp_path: Path) -> None:
    session = Session(tmp_path / recipe.name)
    training = session.open(recipe)
    advancing = session.advance(training, data=data, threads=1)
    for step in advancing:
        if step.step == 3:
            break
    advancing.close()
    assert_same(session.open(recipe).state_dict(), training.state_dict())
    assert png.decode((session.folder / "loss.png").read_bytes()).shape == (360, 720, 3)


def test_losses_after_the_last_save_are_forgotten(recipe: Recipe, data: Data, tmp_path: Path) -> None:
    session = Session(tmp_path / recipe.name)
    training = session.open(recipe)
    for _ in session.advance(training, data=data, threads=1):
        pass
    complete = session.losses.read_text()
    half_written = session.folder / ".state.pt.4194304"
    for torn in ("7,0.1,0.1,0.1\n8,0.1", "1", "2,0.5,0.1,0"):
        session.losses.write_text(complete + torn)
        half_written.write_bytes(b"half")
        assert session.open(recipe).step == STEPS
        assert session.losses.read_text() == complete
        assert not half_written.exists()


def test_a_run_whose_loss_is_no_number_stops_and_keeps_its_last_save(
    recipe: Recipe, data: Data, tmp_path: Path
) -> None:
    session = Session(tmp_path / recipe.name)
    training = session.open(recipe)
    advancing = session.advance(training, data=data, threads=1, cadence=Cadence(save_every=2))
    for _ in islice(advancing, 3):
        pass
    next(iter(training.net.parameters())).data.fill_(torch.inf)
    with pytest.raises(Diverged, match=r"step 4: found a loss of nan, expected a finite one; .*--learning-rate"):
        next(advancing)
    assert session.open(recipe).step == 2


def test_a_finished_run_leaves_a_sheet(recipe: Recipe, data: Data, tmp_path: Path) -> None:
    session = Session(tmp_path / recipe.name)
    training = session.open(recipe)
    assert len(list(session.advance(training, data=data, threads=1))) == STEPS
    assert (session.folder / f"sheet-{STEPS:06d}.png").exists()
    assert preview(training, data=data).ndim == 3


def test_a_folder_of_another_recipe_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    session = Session(tmp_path / recipe.name)
    session.folder.mkdir()
    Training.fresh(recipe).save(session.state)
    with pytest.raises(OtherRecipe, match="differs in learning_rate, time_mean: choose another folder"):
        session.open(recipe.model_copy(update={"learning_rate": 1.0, "time_mean": 0.0}))
    with pytest.raises(NoRun, match="gridit train other starts one"):
        Session(tmp_path / "other").reopen()


def test_the_rate_rises_stays_and_falls_to_zero() -> None:
    plan = Plan(decay_from=60, steps=100)
    factors = [plan.factor(step, warm_up=10) for step in range(101)]
    assert factors[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert set(factors[10:61]) == {1.0}
    assert factors[60:] == pytest.approx([1 - step / 40 for step in range(41)])


def test_finishing_early_starts_the_fall_at_once() -> None:
    plan = Plan(decay_from=60, steps=100).finish(30, within=20)
    assert plan == Plan(decay_from=30, steps=50)
    assert [plan.factor(step, warm_up=1) for step in (29, 30, 40, 50)] == [1.0, 1.0, 0.5, 0.0]


def test_a_budget_is_spent_by_steps_or_by_time() -> None:
    assert not Budget().is_spent(done=10**9)
    assert Budget(steps=3).is_spent(done=3)
    assert not Budget(steps=3, minutes=5).is_spent(done=2)
    assert Budget(minutes=0).is_spent(done=0)


def test_given_rows_enter_nearly_clean_and_count_for_nothing(clips: Path) -> None:
    recipe = tiny_recipe(Stage.COARSE).model_copy(update={"prefix_share": 1.0, "batch": 8})
    rows = batches.batch(recipe, 0, data=material.load(recipe, clips))
    assert rows.weight[:, 0, :, 0].tolist() == [[0.0] * 4 + [1.0] * 4] * 8
    given = (rows.x - rows.clean)[:, :, :4]
    assert 0 < float(given.abs().max()) < 6 * recipe.low_noise
    assert float((rows.x - rows.clean)[:, :, 4:].std()) > 3 * recipe.low_noise
    assert rows.counted == 8 * 3 * 4 * 8


def test_seams_count_the_jumps_of_the_error_across_patches(clips: Path) -> None:
    recipe = tiny_recipe(Stage.REFINE).model_copy(update={"smallest_time": 1.0, "patch": 4})
    rows = batches.batch(recipe, 0, data=material.load(recipe, clips))
    net = Training.fresh(recipe).net  # answers zero, so its error is the enlarged frame less the real one
    plain, seamed = (Objective(net.spec, 1.0, seam_weight=weight).of(net, rows) for weight in (0.0, 2.0))
    error = rows.x[:, 3:] - rows.clean
    jumps = (error[:, :, 4] - error[:, :, 3]).square().sum() + (error[..., 4] - error[..., 3]).square().sum()
    torch.testing.assert_close(plain, error.square().sum())
    torch.testing.assert_close(seamed, plain + 2 * jumps)


def test_a_steps_rows_follow_from_its_number_alone(recipe: Recipe, data: Data) -> None:
    once, again, other = (batches.batch(recipe, step, data=data) for step in (5, 5, 6))
    assert torch.equal(once.x, again.x)
    assert not torch.equal(once.x, other.x)
    assert torch.equal(torch.cat([part.x for part in once.split(2)]), once.x)


def test_the_positional_table_tells_place_and_frame() -> None:
    table = frame_aware(32, tokens=8, grid=4)[0]  # 2 x 2 tokens a frame
    assert float(torch.cdist(table, table).fill_diagonal_(9).min()) > 0.1
    place, frame = table[:, :16], table[:, 16:]
    assert torch.equal(place[0], place[2])  # the same corner of frames 0 and 1
    assert torch.equal(frame[0], frame[9])  # two corners of frame 0


def test_two_runs_become_a_bundle(tmp_path: Path) -> None:
    runs = {stage: Training.fresh(tiny_recipe(stage)) for stage in Stage}
    written = assemble(runs, tmp_path / "bundle", name="tiny")
    assert bundles.load(tmp_path / "bundle") == written
    assert written.spec.recipe[Stage.COARSE] == {
        "done": {"steps": 0, "decay_from": 0, "samples": 0},
        "recipe": runs[Stage.COARSE].recipe.model_dump(mode="json"),
    }
    alien = Training.fresh(tiny_recipe(Stage.REFINE).model_copy(update={"domains": ("sky",)}))
    with pytest.raises(Mismatch, match=r"domains is \('lava', 'sky'\) in tiny-coarse, \('sky',\) in tiny-refine"):
        assemble({**runs, Stage.REFINE: alien}, tmp_path / "bundle", name="tiny")


def test_presets_fit_together() -> None:
    assert set(PRESETS) == {f"demo-{stage}" for stage in Stage}
    assert all(recipe.name == f"demo-{recipe.stage}" for recipe in PRESETS.values())
    assert all(list(recipe.domains) == sorted(recipe.domains) for recipe in PRESETS.values())


def assert_same(one: object, other: object) -> None:
    """Equal to the last bit, all the way down."""
    if isinstance(one, torch.Tensor):
        assert isinstance(other, torch.Tensor)
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert isinstance(other, dict)
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert isinstance(other, list | tuple)
        for ours, theirs in zip(one, other, strict=True):
            assert_same(ours, theirs)
    else:
        assert one == other
