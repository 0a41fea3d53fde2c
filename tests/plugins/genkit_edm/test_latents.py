"""The draws of EDM's generate.py, and with them its images from imported networks."""

from __future__ import annotations

import io
import json
import math
import re
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

import genkit
from genkit.cli import main
from genkit.errors import Code, DataError
from genkit.types import SEED_LIMIT as SEEDS
from genkit_edm.latents import EdmLatents
from inside import reading_inside
from raising import raises_code

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("coarse_pictures")]

COUNT = 16
BATCH = 5  # does not divide the number of samples
SAMPLERS = {
    "heun": {},
    "churned": {"S_churn": 20, "S_min": 0.05, "S_max": 20, "S_noise": 1.007},
    "euler along path vp": {"solver": "euler", "schedule": "vp", "scaling": "vp", "S_churn": 4},
}


class ReferenceDraws:
    """Random numbers in the order of generate.py, written anew for this test.

    Each sample has a generator, seeded with the sample's number: the latent in float32, the class,
    then noise of the states' type in every step.
    """

    def __init__(self, seeds, shape, classes):
        self.generators = []
        for seed in seeds:
            self.generators.append(torch.Generator())
            self.generators[-1].manual_seed(seed)
        self.latents = torch.stack([torch.randn(*shape, generator=g) for g in self.generators])
        self.labels = None
        if classes:
            drawn = [torch.randint(classes, [], generator=g) for g in self.generators]
            self.labels = torch.stack(drawn)

    def noise(self, x):
        return torch.stack(
            [torch.randn(x[0].shape, generator=g, dtype=x.dtype) for g in self.generators]
        )


def rendered(images):
    """Return PNGs of images as generate.py makes them: in float64, shifted by 128, cut off."""
    pixels = np.clip(images.numpy() * 127.5 + 128, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    found = []
    for image in pixels:
        content = io.BytesIO()
        Image.fromarray(image, "RGB").save(content, "png")
        found.append(content.getvalue())
    return found, pixels


def known_range(precond, weights):
    """Return the range of levels and the nearest known level of a network of the reference."""
    if precond == "VPPrecond":
        ends = torch.tensor([1e-5, 1.0], dtype=torch.float64)
        return *(0.5 * 19.9 * ends**2 + 0.1 * ends).expm1().sqrt().tolist(), lambda sigma: sigma
    if precond == "VEPrecond":
        return 0.02, 100.0, lambda sigma: sigma
    if precond == "iDDPMPrecond":
        table = weights["u"].double()

        def nearest(sigma):
            apart = (sigma.reshape(-1, 1) - table[:-1]).abs()
            return table[apart.argmin(1)].reshape(sigma.shape)

        return float(table[-2]), float(table[0]), nearest
    return 0.0, math.inf, lambda sigma: sigma


@pytest.fixture(scope="module")
def imported(tmp_path_factory, edm_golden, edm_files):
    """Return the file that `import-edm` makes of an assembled snapshot of a golden network."""
    folder = tmp_path_factory.mktemp("imported")

    @cache
    def make(name):
        tensors, metadata = edm_golden(f"denoiser_{name}")
        weights = {k.removeprefix("weights."): v for k, v in tensors.items() if "weights." in k}
        arrays = {name: value.numpy() for name, value in weights.items()}
        tree = edm_files.snapshot(arrays, metadata["precond"], json.loads(metadata["arguments"]))
        snapshot, file = folder / f"{name}.pkl", folder / f"{name}.safetensors"
        snapshot.write_bytes(edm_files.emitted(tree))
        with reading_inside(), pytest.raises(SystemExit) as stopped:
            main(["import-edm", str(snapshot), str(file)])
        assert not stopped.value.code
        return file, known_range(metadata["precond"], weights)

    return make


def as_solver(how):
    """Return the table of genkit's solver for settings of the reference."""
    table = {k.lower(): float(v) for k, v in how.items() if k.startswith("S_")}
    table["path"], table["scaling"] = how.get("schedule", "linear"), how.get("scaling", "none")
    return {"use": how.get("solver", "heun"), **table}


def in_toml(table):
    return "{ " + ", ".join(f"{k} = {json.dumps(v)}" for k, v in table.items()) + " }"


# From a level at which random weights leave pixels inside the range of an image.
@pytest.mark.parametrize(
    ("name", "sigma_max"), [("ddpmpp", 80.0), ("vp_ddpmpp", 0.5), ("iddpm_adm", 0.5)]
)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_images_are_those_of_the_reference(
    imported, genkit_, edm_sampler, tmp_path, name, sigma_max, sampler
) -> None:
    file, (low, high, nearest) = imported(name)
    how, out, denoiser = SAMPLERS[sampler], tmp_path / "out", genkit.load_denoiser(file, "cpu")
    draws = ReferenceDraws(range(COUNT), denoiser.spec.shape, denoiser.classes)
    batches = len(range(0, COUNT, BATCH))
    split_labels = [None] * batches if draws.labels is None else draws.labels.split(BATCH)

    @torch.no_grad()
    def denoise(x, sigma):
        # In batches of the same size: the last bits of a network depend on it, and may decide how a
        # pixel is rounded.
        parts = [
            denoiser(part, sigma.float().expand(len(part)), labels)
            for part, labels in zip(x.float().split(BATCH), split_labels, strict=True)
        ]
        return torch.cat(parts).double()

    ends = max(0.002, low), min(sigma_max, high)
    sigmas = nearest(edm_sampler.levels("edm", 6, *ends))
    expected = edm_sampler.solved(
        denoise, draws.latents, sigmas, draws.noise, range=ends, nearest=nearest, **how
    )
    schedule = in_toml({"use": "edm", "steps": 6, "sigma_max": sigma_max})
    seeds = ("--latents", "edm", "--seeds", f"0-{COUNT - 1}", "--batch-size", BATCH)
    parts = ("--schedule", schedule, "--solver", in_toml(as_solver(how)), "--start", "noise")
    code, _, err = genkit_("sample", file, *seeds, *parts, "--device", "cpu", "--out", out)
    assert (code, err) == (0, "")
    files, pixels = rendered(expected)
    same = [(out / f"{seed:06d}.png").read_bytes() == files[seed] for seed in range(COUNT)]
    assert sum(same) == COUNT
    inside = ((pixels > 0) & (pixels < 255)).mean()
    assert inside > 0.2  # the images show whether something differs


NARROWED = {
    # 64 levels of iDDPM's table are 63: one step adds noise and goes nowhere.
    "equal levels": ("iddpm_adm", 64, 0.002, 0.5, {"S_churn": 10}),
    # The range of the network is 0.02 to 100, from which the path's constants follow.
    "path vp": ("ve_ncsnpp", 6, 0.002, 150.0, {"schedule": "vp", "scaling": "vp"}),
    # Churn exceeds the range of the network, as in the reference.
    "churn at the top, ve": ("ve_ncsnpp", 6, 0.002, 150.0, {"S_churn": 2}),
    "churn at the top, vp": ("vp_ddpmpp", 6, 1e-4, 200.0, {"S_churn": 2}),
    "churn at the top, iddpm": ("iddpm_adm", 6, 0.002, 1e4, {"S_churn": 2}),
}


@pytest.mark.parametrize("case", NARROWED)
def test_levels_that_a_network_narrows_or_rounds(imported, edm_sampler, case) -> None:
    name, steps, sigma_min, sigma_max, how = NARROWED[case]
    file, (low, high, nearest) = imported(name)
    denoiser = genkit.load_denoiser(file, "cpu")
    draws = ReferenceDraws(range(2), denoiser.spec.shape, denoiser.classes)

    @torch.no_grad()
    def denoise(x, sigma):
        return denoiser(x.float(), sigma.float().expand(len(x))).double()

    ends = max(sigma_min, low), min(sigma_max, high)
    assert ends != (sigma_min, sigma_max)
    sigmas = nearest(edm_sampler.levels("edm", steps, *ends))
    expected = edm_sampler.solved(
        denoise, draws.latents, sigmas, draws.noise, range=ends, nearest=nearest, **how
    )
    schedule = {"steps": steps, "sigma_min": sigma_min, "sigma_max": sigma_max}
    found = denoiser.sample(
        2,
        schedule=schedule,
        solver=as_solver(how),
        latents="edm",
        start="noise",
        dtype=torch.float64,
    )
    assert float((found - expected).norm() / expected.norm()) < 1e-5
    assert len(sigmas.unique()) < steps or case != "equal levels"


def test_a_chosen_class_leaves_the_noise_as_it_is(imported, edm_sampler) -> None:
    """The class is drawn in any case, so that the noise of the steps is the same."""
    file, _ = imported("ddpmpp")
    denoiser = genkit.load_denoiser(file, "cpu")
    draws = ReferenceDraws(range(3), denoiser.spec.shape, denoiser.classes)
    labels = torch.tensor([2, 2, 2])

    @torch.no_grad()
    def denoise(x, sigma):
        return denoiser(x.float(), sigma.float().expand(len(x)), labels).double()

    sigmas = edm_sampler.levels("edm", 4, 0.002, 80.0)
    expected = edm_sampler.solved(denoise, draws.latents, sigmas, draws.noise, S_churn=10)
    found = denoiser.sample(
        3,
        schedule={"steps": 4},
        solver=as_solver({"S_churn": 10}),
        latents="edm",
        start="noise",
        labels=labels,
        seed=9,  # has no effect
        dtype=torch.float64,
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_seeds_are_taken_modulo_2_to_the_32() -> None:
    draws = EdmLatents().draw((1, 4, 4), [7, 7 + 2**32, SEEDS - 1], 0, torch.device("cpu"), 0)
    assert torch.equal(draws.latents[0], draws.latents[1])
    last = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(2**32 - 1))
    assert torch.equal(draws.latents[2], last)


@pytest.mark.parametrize("latents", ["edm", "derived"])
@pytest.mark.parametrize("seeds", [[-1], [3, SEEDS]])
def test_seeds_out_of_range_are_refused(imported, latents, seeds) -> None:
    file, _ = imported("ddpmpp")
    with raises_code(DataError, Code.DATA, "seeds", "0 to 9223372036854775807"):
        genkit.load_denoiser(file, "cpu").sample(seeds, latents=latents)


RECIPE = """
name = "protocol"
data = {{ use = "{data}" }}

[[stage]]
id = "denoiser"
use = "train"
images = 64
batch_size = 64
network = {{ use = "mlp", width = 8, blocks = 1, class_conditional = {conditional} }}
objective = {{ use = "denoising" }}

[[stage]]
id = "samples"
use = "sample"
denoiser = "denoiser"
count = 6
batch_size = 4
first_seed = {first}
latents = {{ use = "edm" }}
schedule = {{ use = "edm", steps = 3 }}

[[stage]]
id = "sets"
use = "sweep"
samples = "samples"
count = 4
vary.first_seed = [0, 50_000, 100_000]
metrics = [{{ use = "curvature", count = 2 }}]
"""


def test_a_stage_draws_the_seeds_of_a_set(tmp_path) -> None:
    recipe = tmp_path / "protocol.toml"
    recipe.write_text(RECIPE.format(data="digits", conditional="true", first=50_000))
    result = genkit.run_recipe(recipe, out=tmp_path / "run", device="cpu")
    stored, _ = genkit.tensors.load(result.folder / "02-samples" / "samples.safetensors")
    denoiser = result.denoiser(device="cpu")
    seeds = range(50_000, 50_006)
    expected = denoiser.sample(seeds, schedule={"steps": 3}, latents="edm")
    levels = (expected.double() * 127.5 + 128).clamp(0, 255)
    # A last bit of the network's output may decide to which of two levels a pixel is rounded.
    assert (stored["samples"] - levels.floor()).abs().max() <= 1
    assert (stored["samples"] == levels.floor()).float().mean() > 0.99
    labels = ReferenceDraws(seeds, (1, 8, 8), 10).labels
    assert stored["labels"].tolist() == labels.tolist()
    assert [row["first_seed"] for row in result.scores["sets"]] == [0, 50_000, 100_000]


@pytest.mark.parametrize(
    ("data", "conditional", "first", "said"),
    [
        ("swiss-roll", "false", 0, 'samples.latents: latents "edm" must be used with images'),
        ("digits", "false", SEEDS - 5, f"samples.first_seed: must be at most .* {SEEDS - 6}, got"),
        ("digits", "false", -1, r"samples\.first_seed: .*got -1 \[out-of-range\]"),
    ],
)
def test_what_a_stage_cannot_draw_is_refused(tmp_path, genkit_, data, conditional, first, said):
    recipe = tmp_path / "protocol.toml"
    recipe.write_text(RECIPE.format(data=data, conditional=conditional, first=first))
    code, _, err = genkit_("validate", recipe)
    assert code == 2
    assert re.search(said, err)
