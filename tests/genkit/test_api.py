"""genkit from Python."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import sys
from importlib import resources
from typing import get_args, get_overloads, get_type_hints

import numpy as np
import pytest
import torch

import genkit
from genkit.artifacts import Run
from genkit.errors import (
    Code,
    DataError,
    PluginError,
    RecipeError,
    SettingError,
    UnknownComponentError,
    UsageError,
)
from genkit.files import write_json
from genkit.plugin.kinds import KINDS
from genkit.plugin.registry import base_of
from raising import raises_code

pytestmark = pytest.mark.usefixtures("coarse_pictures")

SMALL = {
    "data.items": 200,
    "denoiser.images": 256,
    "denoiser.batch_size": 64,
    "denoiser.pool_size": 64,
    "denoiser.network.width": 8,
    "samples.count": 16,
    "samples.schedule.steps": 2,
    "scores.metrics": [{"use": "truncation", "count": 4}],
}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api") / "run"
    return genkit.run_recipe("smoke", out=folder, settings=SMALL, device="cpu")


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    coupler = {"use": "partitioned", "by": ["label"]}
    settings = {**SMALL, "denoiser.network.class_conditional": True, "denoiser.coupler": coupler}
    folder = tmp_path_factory.mktemp("api") / "run"
    return genkit.run_recipe("smoke", out=folder, settings=settings, device="cpu").denoiser()


def test_a_recipe_runs_and_tells_its_scores(result, capsys):
    assert (result.folder / "results.json").is_file()
    (row,) = result.scores["scores"]
    assert row["nfe"] == 4  # with the corrected start of assigned noise
    assert row["truncation_5"] > 0
    assert capsys.readouterr() == ("", "")


def test_a_recipe_that_is_finished_is_not_run_again(result, capsys):
    again = genkit.run_recipe(
        "smoke", out=result.folder, settings=SMALL, device="cpu", progress=True
    )
    assert again == result
    assert capsys.readouterr().err.count("finished before") == 3


def test_a_run_goes_to_runs_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("genkit.api.execute", lambda *arguments, **more: {"stages": {}})
    assert genkit.run_recipe("smoke").folder.as_posix() == "runs/smoke"


def test_mistakes_are_raised(tmp_path):
    with raises_code(RecipeError, Code.UNKNOWN_KEY, "denoiser.imagez"):
        genkit.run_recipe("smoke", out=tmp_path / "run", settings={"denoiser.imagez": 1})
    with raises_code(UsageError, Code.NOT_FOUND, '"smoke"'):
        genkit.run_recipe("smokee", out=tmp_path / "run")
    with raises_code(UsageError, Code.NO_DEVICE, '"gpu"'):
        genkit.run_recipe("smoke", out=tmp_path / "run", device="gpu")
    assert not (tmp_path / "run").exists()


def test_a_denoiser_is_called_and_sampled(result):
    denoiser = result.denoiser(device="cpu")
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    assert denoiser(x, torch.full((5,), 2.0)).shape == (5, 2)
    drawn = denoiser.sample(6, schedule={"steps": 3}, solver={"use": "euler"})
    assert (drawn.shape, drawn.dtype) == ((6, 2), torch.float32)
    assert not torch.equal(drawn, denoiser.sample(6, schedule={"steps": 3}))


def test_a_sample_is_the_same_whatever_the_count(result):
    denoiser = result.denoiser(device="cpu")
    few, many = denoiser.sample(3, seed=5), denoiser.sample(40, seed=5)
    assert torch.allclose(few, many[:3], atol=1e-5)
    assert not torch.allclose(few, denoiser.sample(3, seed=6), atol=1e-2)


def test_a_conditional_denoiser_is_asked_for_classes(conditional):
    in_turn = conditional.sample(4)
    assert torch.equal(in_turn, conditional.sample(4, labels=[0, 1, 0, 1]))
    assert not torch.equal(in_turn, conditional.sample(4, labels=torch.zeros(4).long()))


def test_the_class_of_a_sample_follows_from_its_seed(conditional):
    drawn = conditional.sample(range(1, 8), batch_size=3)
    labels = [seed % 2 for seed in range(1, 8)]
    assert torch.equal(drawn, conditional.sample(range(1, 8), labels=labels, batch_size=3))
    assert torch.allclose(drawn[2:3], conditional.sample([3]), atol=1e-5)


@pytest.mark.parametrize(
    ("count", "labels", "message"),
    [
        (2, [0], (Code.WRONG_LENGTH, "labels", 2, 1)),
        (2, [0, 2], (Code.OUT_OF_RANGE, "labels", 2, "0 to 1")),
        (2, [-1, 0], (Code.OUT_OF_RANGE, "labels", -1, "0 to 1")),
        (2, [0.7, 1.2], (Code.WRONG_TYPE, "labels", [0.7, 1.2])),
        (2, 3, (Code.WRONG_TYPE, "labels", 3)),
        (2, "01", (Code.WRONG_TYPE, "labels", "'01'")),
    ],
)
def test_labels_that_do_not_fit_are_refused(conditional, count, labels, message):
    with raises_code(DataError, *message):
        conditional.sample(count, labels=labels)


def test_labels_are_refused_where_there_are_no_classes(result):
    with raises_code(DataError, Code.CONFLICT, "labels"):
        result.denoiser(device="cpu").sample(2, labels=[0, 1])


def test_settings_of_a_sampler_are_checked(result):
    denoiser = result.denoiser(device="cpu")
    with raises_code(SettingError, Code.OUT_OF_RANGE, "steps"):
        denoiser.sample(2, schedule={"steps": 0})
    with raises_code(UnknownComponentError, Code.UNKNOWN_COMPONENT, '"huen"'):
        denoiser.sample(2, solver={"use": "huen"})


def test_only_a_denoiser_is_loaded_as_one(result, tmp_path):
    with raises_code(DataError, Code.NOT_FOUND, "nowhere"):
        result.denoiser("nowhere")
    with raises_code(DataError, Code.NOT_FOUND, "absent.safetensors"):
        genkit.load_denoiser(tmp_path / "absent.safetensors")
    with raises_code(DataError, Code.DATA, "samples.safetensors"):
        genkit.load_denoiser(result.folder / "02-samples" / "samples.safetensors")


def test_a_coupler_in_a_loop_of_ones_own():
    coupler = genkit.component("coupler", "hungarian", cost="squared")
    draws = torch.Generator().manual_seed(0)
    images, noise = torch.randn(2, 64, 3, generator=draws)
    pairs = coupler.pair(genkit.Batch(images), noise, draws)
    paired = (images[pairs.data] - noise[pairs.noise]).square().sum()
    assert paired < (images - noise).square().sum()


def test_a_component_with_a_slot():
    coupler = genkit.component("coupler", "partitioned", by=["label"], inner={"use": "random"})
    assert type(coupler.inner).__name__ == "Random"


def test_a_component_that_is_not_there():
    with raises_code(PluginError, Code.PLUGIN, '"coupler"'):
        genkit.component("copuler", "hungarian")
    with raises_code(UnknownComponentError, Code.UNKNOWN_COMPONENT, '"hungarian"'):
        genkit.component("coupler", "hungarain")
    with raises_code(SettingError, Code.UNKNOWN_CHOICE, "cost"):
        genkit.component("coupler", "hungarian", cost="cheap")


def test_public_names():
    assert all(getattr(genkit, name).__name__ == name for name in genkit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = genkit.nothing


def test_importing_genkit_costs_nothing():
    code = "import sys, genkit; assert not {'torch', 'typer', 'pluggy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_samples_are_the_same_in_any_batch(result):
    denoiser = result.denoiser(device="cpu")
    whole = denoiser.sample(5, schedule={"steps": 2})
    cut = denoiser.sample(5, schedule={"steps": 2}, batch_size=2)
    torch.testing.assert_close(whole, cut)


@pytest.mark.parametrize("asked", [{"count": 0}, {"count": 2, "batch_size": 0}])
def test_no_samples_cannot_be_drawn(result, asked):
    with raises_code(DataError, Code.OUT_OF_RANGE, "count", "batch_size"):
        result.denoiser(device="cpu").sample(**asked)


@pytest.mark.parametrize(
    ("seeds", "code"),
    [
        ([0, 2.5], Code.WRONG_TYPE),
        ([-1], Code.DATA),
        ([2**63], Code.DATA),
        (["a"], Code.WRONG_TYPE),
        ("5", Code.WRONG_TYPE),
    ],
)
def test_seeds_are_integers_below_2_to_the_63(result, seeds, code):
    with raises_code(DataError, code, "seeds"):
        result.denoiser(device="cpu").sample(seeds)


def test_seeds_of_any_integer_type(result):
    denoiser = result.denoiser(device="cpu")
    expected = denoiser.sample([5, 3], schedule={"steps": 2})
    for seeds in (torch.tensor([5, 3]), np.array([5, 3]), (5, 3)):
        assert torch.equal(denoiser.sample(seeds, schedule={"steps": 2}), expected)


@pytest.mark.parametrize("count", [2.5, None])
def test_a_count_is_an_integer(result, count):
    with raises_code(DataError, Code.WRONG_TYPE, "count"):
        result.denoiser(device="cpu").sample(count)


def test_a_count_of_any_integer_type(result):
    denoiser = result.denoiser(device="cpu")
    expected = denoiser.sample(2, schedule={"steps": 2})
    for count in (np.int64(2), torch.tensor(2), np.array(2), [0, 1]):
        assert torch.equal(denoiser.sample(count, schedule={"steps": 2}), expected)


def test_parts_that_are_left_out_are_the_defaults(result):
    denoiser = result.denoiser(device="cpu")
    expected = denoiser.sample(2, schedule="edm", solver="heun", latents="derived")
    assert torch.equal(denoiser.sample(2), expected)
    assert torch.equal(denoiser.sample(2, schedule=None, solver={}, latents=None), expected)


@pytest.mark.parametrize("part", ["schedule", "solver", "latents"])
@pytest.mark.parametrize("wrong", [5, ["edm"], object()])
def test_a_part_is_a_name_or_a_table(result, part, wrong):
    with raises_code(SettingError, Code.WRONG_TYPE, part):
        result.denoiser(device="cpu").sample(2, **{part: wrong})


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"dtype": torch.int64}, ("dtype", "torch.int64")),
        ({"dtype": "float64"}, ("dtype", "float64")),
        ({"seed": float("nan")}, ("seed", "nan")),
        ({"batch_size": 1.5}, ("batch_size", 1.5)),
    ],
)
def test_arguments_of_other_types_are_refused(result, settings, reason):
    with raises_code(DataError, Code.WRONG_TYPE, *reason):
        result.denoiser(device="cpu").sample(2, **settings)


def test_an_unknown_precision_is_refused(result):
    with raises_code(DataError, Code.UNKNOWN_CHOICE, "precision", "fp16"):
        result.denoiser(device="cpu").sample(2, precision="fp16")


def test_samples_in_double_precision(result):
    denoiser = result.denoiser(device="cpu")
    wide = denoiser.sample(4, schedule={"steps": 2}, dtype=torch.float64)
    assert wide.dtype == torch.float64
    assert torch.equal(wide.float(), denoiser.sample(4, schedule={"steps": 2}))


@pytest.mark.parametrize("solver", ["euler", "heun", "adaptive"])
def test_a_trajectory_has_a_state_at_each_noise_level(result, solver):
    denoiser = result.denoiser(device="cpu")
    parts = {"schedule": {"steps": 3}, "solver": solver}
    levels = denoiser.noise_levels(**parts)
    assert (levels.dtype, levels.shape, float(levels[-1])) == (torch.float64, (4,), 0.0)
    assert bool((levels.diff() < 0).all())
    states = denoiser.sample(5, **parts, start="noise", batch_size=2, trajectory=True)
    assert (states.shape, states.dtype) == ((4, 5, 2), torch.float32)
    samples = denoiser.sample(5, **parts, start="noise", batch_size=2)
    assert torch.equal(states[-1], samples)
    assert float(states[0].std()) > 10  # noise of the first level, 80


def test_a_trajectory_in_double_precision(result):
    denoiser = result.denoiser(device="cpu")
    states = denoiser.sample([3], schedule={"steps": 2}, dtype=torch.float64, trajectory=True)
    assert states.dtype == torch.float64


def test_results_are_shown(result):
    assert "truncation_5" in repr(result)
    shown = result._repr_html_()
    assert shown.count("<table>") == 2
    for text in ("smoke", "finished", "truncation_5", "samples of samples"):
        assert text in shown
    picture = base64.b64decode(re.search(r"base64,([^\"]+)", shown)[1])
    assert picture == (result.folder / "02-samples" / "samples.png").read_bytes()
    assert Run.load(result.folder)._repr_html_() == shown


def test_an_unfinished_run_is_shown_without_results(result, tmp_path):
    shutil.copytree(result.folder, tmp_path / "run")
    write_json(tmp_path / "run" / "01-denoiser" / "state.json", {"finished": False})
    shown = Run.load(tmp_path / "run")._repr_html_()
    assert "unfinished" in shown
    assert "truncation_5" not in shown


def test_a_denoiser_is_shown(conditional):
    shown, parameters = conditional._repr_html_(), conditional.module.parameters()
    for text in ("Mlp", "(2,)", "cpu", f"{sum(p.numel() for p in parameters):,}"):
        assert text in repr(conditional)
        assert text in shown


def test_a_path_is_a_setting(tmp_path):
    with raises_code(RecipeError, Code.NOT_FOUND, "photos"):
        genkit.run_recipe(
            "smoke",
            out=tmp_path / "run",
            settings={"data": {"use": "image-folder"}, "data.root": tmp_path / "photos"},
        )


# --- types ----------------------------------------------------------------------------------


def test_the_type_of_a_component_is_known_for_every_kind():
    hints = [get_type_hints(overload) for overload in get_overloads(genkit.component)]
    found = {get_args(hint["kind"])[0]: hint["return"] for hint in hints if get_args(hint["kind"])}
    assert found == {kind: base_of(kind) for kind in KINDS}


def test_the_package_declares_that_it_has_types():
    assert (resources.files("genkit") / "py.typed").is_file()


def test_public_names_are_listed():
    assert dir(genkit) == sorted(genkit.__all__)
