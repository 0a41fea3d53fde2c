"""DINOv2 and CLIP against the library's own models and image processors, tiny and random."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from genkit.errors import Code, DataError
from genkit.random import generator, seeded
from genkit.testing import check_extractor
from genkit.types import DataSpec
from genkit_metrics import vision_transformers
from genkit_metrics.clip import Clip
from genkit_metrics.dinov2 import SIZE, Dinov2, resize_positions
from raising import raises_code

INPUTS = SimpleNamespace(device=torch.device("cpu"))

SHARED = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 14}


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason='needs the extra "transformers"')


def saved(model, folder):
    """Write a model with random weights of a size at which images matter; return it."""
    draw = generator(0, "weights")
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw) / 4)
    model.save_pretrained(folder)
    return model.eval()


@pytest.fixture(scope="module")
def dinov2(transformers, tmp_path_factory):
    """A model for images of 224x224, whose positions need no resizing, and its folder."""
    folder = tmp_path_factory.mktemp("dinov2")
    with seeded(0):
        config = transformers.Dinov2Config(**SHARED, image_size=SIZE)
        return saved(transformers.Dinov2Model(config), folder), folder


@pytest.fixture(scope="module")
def clip(transformers, tmp_path_factory):
    """A model of images and texts, and its folder."""
    folder = tmp_path_factory.mktemp("clip")
    vision = {**SHARED, "intermediate_size": 32, "image_size": 336, "projection_dim": 8}
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}
    with seeded(0):
        config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=8)
        return saved(transformers.CLIPModel(config), folder), folder


def smooth(size):
    """Return uint8 images ``[3, 3, size, size]`` without sharp edges, from 68 to 188."""
    at = torch.linspace(0, 1, size)
    waves = [torch.sin(k * at[:, None] + 2 * k * at + k) for k in range(1, 10)]
    return (128 + 60 * torch.stack(waves)).to(torch.uint8).reshape(3, 3, size, size)


def processed(processor, images, size):
    """Return what the library's image processor makes of uint8 images, resized to a size."""
    sides = {"height": size, "width": size}
    given = {"do_center_crop": False, "size": sides, "resample": 3, "do_convert_rgb": False}
    arrays = list(images.permute(0, 2, 3, 1).numpy())
    return processor(**given)(arrays, return_tensors="pt")["pixel_values"]


def features(extractor, images):
    return extractor.bind(INPUTS)(images.float() / 127.5 - 1)


def test_dinov2_is_the_class_token_of_the_library(transformers, dinov2):
    model, folder = dinov2
    images = smooth(SIZE)
    # Of the mean and standard deviation of ImageNet, as the published processor is configured.
    pixels = processed(
        lambda **given: transformers.BitImageProcessorPil(
            **given, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
        ),
        images,
        SIZE,
    )
    with torch.no_grad():
        wanted = model(pixels).pooler_output
    found = features(Dinov2(folder=str(folder)), images)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert float((wanted[0] - wanted[1]).abs().max()) > 1e-2  # the images matter


def test_clip_is_the_embedding_of_the_library(transformers, clip):
    model, folder = clip
    images = smooth(336)
    pixels = processed(transformers.CLIPImageProcessorPil, images, 336)
    with torch.no_grad():
        wanted = model.get_image_features(pixels)
    wanted = getattr(wanted, "pooler_output", wanted)
    found = features(Clip(folder=str(folder)), images)
    torch.testing.assert_close(found, wanted / wanted.norm(dim=1, keepdim=True))
    assert float((found[0] - found[1]).abs().max()) > 1e-2


def test_a_file_of_an_older_release_fits(clip, tmp_path):
    # Published files of CLIP hold the numbers of the positions, which the library now makes itself.
    weights = load_file(clip[1] / "model.safetensors")
    weights["vision_model.embeddings.position_ids"] = torch.arange(1 + 24**2)[None]
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((clip[1] / "config.json").read_bytes())
    found, wanted = (features(Clip(folder=str(f)), smooth(64)) for f in (tmp_path, clip[1]))
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("size", [32, 500])
def test_images_are_resized_as_the_library_does_but_for_rounding(transformers, clip, size):
    images = smooth(size)
    module = Clip(folder=str(clip[1])).bind(INPUTS)
    found = module.network.images(images.float())
    wanted = processed(transformers.CLIPImageProcessorPil, images, 336)
    # The library rounds to 8 bits in between.
    assert float((found - wanted).abs().max()) < 1.1 / 255 / 0.26


def test_laws_hold(dinov2, clip):
    check_extractor(Dinov2(folder=str(dinov2[1])), DataSpec((3, 8, 8)))
    check_extractor(Clip(folder=str(clip[1]), gray="repeat"), DataSpec((1, 8, 8)))


def cubic(values, at):
    """Return values interpolated at positions, by Keys' cubic with a = -0.75, by hand."""
    first = np.floor(at).astype(int)
    result = 0
    for k in range(-1, 3):
        t = np.abs(at - first - k)
        near = 1.25 * t**3 - 2.25 * t**2 + 1
        far = -0.75 * (t**3 - 5 * t**2 + 8 * t - 4)
        weight = np.where(t <= 1, near, far)
        result = result + weight[:, None] * values[(first + k).clip(0, len(values) - 1)]
    return result


def test_positions_are_resized_as_the_authors_code_does():
    before, grid = 37, 16
    table = torch.randn(1, 1 + before**2, 3, generator=generator(0, "table"))
    found = resize_positions(table, grid)
    assert torch.equal(found[:, 0], table[:, 0])
    at = (np.arange(grid) + 0.5) * before / (grid + 0.1) - 0.5
    for channel in range(3):
        patches = table[0, 1:, channel].double().reshape(before, before).numpy()
        wanted = cubic(cubic(patches, at).T, at).T
        error = found[0, 1:, channel].reshape(grid, grid).numpy() - wanted
        assert np.abs(error).max() < 1e-5


def test_a_model_for_other_sizes_has_resized_positions(transformers, tmp_path):
    config = transformers.Dinov2Config(**SHARED, image_size=518)
    with seeded(0):
        model = saved(transformers.Dinov2Model(config), tmp_path)
    images = smooth(SIZE)
    module = Dinov2(folder=str(tmp_path)).bind(INPUTS)
    table = model.embeddings.position_embeddings.data
    inner = module.network.network.model
    assert torch.equal(inner.embeddings.position_embeddings, resize_positions(table, 16))
    assert module(images.float() / 127.5 - 1).shape == (3, 16)


def test_identity_and_version_follow_both_files(dinov2, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((dinov2[1] / name).read_bytes())
    extractors = [Dinov2(folder=str(tmp_path)) for _ in range(3)]  # as each run decodes it
    seen = [(extractors[0].identity(INPUTS), extractors[0].version())]
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 0.1}))
    seen.append((extractors[1].identity(INPUTS), extractors[1].version()))
    file = tmp_path / "model.safetensors"
    save_file({name: 2 * tensor for name, tensor in load_file(file).items()}, file)
    seen.append((extractors[2].identity(INPUTS), extractors[2].version()))
    assert len({identity for identity, _ in seen}) == len({version for _, version in seen}) == 3
    for extractor in extractors[:2]:  # files that changed since
        with raises_code(DataError, Code.CHANGED):
            extractor.bind(INPUTS)
    extractors[2].bind(INPUTS)
    assert Dinov2(folder=str(tmp_path), precision="tf32").identity(INPUTS) != seen[-1][0]


def test_identity_and_version_follow_the_library(dinov2, monkeypatch):
    extractor = Dinov2(folder=str(dinov2[1]))
    seen = {(extractor.identity(INPUTS), extractor.version())}
    monkeypatch.setattr(vision_transformers, "version", lambda name: f"{name} of tomorrow")
    seen.add((extractor.identity(INPUTS), extractor.version()))

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(vision_transformers, "version", missing)
    seen.add((extractor.identity(INPUTS), extractor.version()))
    assert len({identity for identity, _ in seen}) == len({version for _, version in seen}) == 3


def test_nothing_but_the_two_files_is_read(dinov2, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((dinov2[1] / name).read_bytes())
    plain = features(Dinov2(folder=str(tmp_path)), smooth(SIZE))
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"auto_map": {"AutoModel": "own.Model"}, "quantization_config": {"quant_method": "x"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text("raise SystemExit")
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    (tmp_path / "adapter_config.json").write_text("{}")
    assert torch.equal(features(Dinov2(folder=str(tmp_path)), smooth(SIZE)), plain)


def change(folder, dinov2, config=None, weights=None):
    """Write the files of a model to a folder, changed; a function that returns None leaves out."""
    settings = json.loads((dinov2[1] / "config.json").read_text())
    tensors = load_file(dinov2[1] / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config(settings) if config else settings))
    save_file(weights(tensors) if weights else tensors, folder / "model.safetensors")
    return Dinov2(folder=str(folder))


def without(table, name):
    return {key: value for key, value in table.items() if key != name}


@pytest.mark.parametrize(
    ("config", "weights"),
    [
        (None, lambda tensors: without(tensors, "layernorm.bias")),
        (None, lambda tensors: {**tensors, "layernorm.bias": torch.zeros(3)}),
        (None, lambda tensors: {**tensors, "head.weight": torch.zeros(3)}),
        (lambda settings: {**settings, "hidden_size": 32}, None),
        (lambda settings: {**settings, "hidden_size": "many"}, None),
        (lambda settings: {**settings, "hidden_act": "nothing"}, None),
        (lambda settings: {**settings, "num_hidden_layers": 1}, None),
    ],
)
def test_files_that_do_not_fit_are_refused(dinov2, tmp_path, config, weights):
    extractor = change(tmp_path, dinov2, config, weights)
    with raises_code(DataError, Code.UNREADABLE, tmp_path):
        extractor.bind(INPUTS)


def test_other_folders_are_refused_before_the_run(dinov2, clip, tmp_path):
    assert not list(Dinov2(folder=str(dinov2[1])).check({}))
    assert not list(Clip(folder=str(clip[1])).check({}))
    for extractor in (
        Dinov2(folder=str(clip[1])),
        Clip(folder=str(dinov2[1])),
        change(tmp_path, dinov2, lambda settings: [settings]),
    ):
        (problem,) = extractor.check({})
        assert (problem.key, problem.code) == (("folder",), Code.WRONG_KIND)
    (tmp_path / "config.json").write_text("{")
    (problem,) = Dinov2(folder=str(tmp_path)).check({})
    assert (problem.key, problem.code) == (("folder",), Code.UNREADABLE)
    (problem,) = Dinov2(folder="~nobody-of-this-name/folder").check({})
    assert (problem.key, problem.code) == (("folder",), Code.NOT_FOUND)
    config, weights = Dinov2(folder="nowhere").check({})
    assert (config.key, config.code) == (("folder",), Code.IO_ERROR)
    assert (weights.key, weights.code) == (("folder",), Code.NOT_FOUND)


@pytest.mark.parametrize("extractor", [Dinov2, Clip])
def test_an_extra_that_is_missing_is_refused_before_the_run(monkeypatch, extractor):
    for name in [name for name in sys.modules if name.partition(".")[0] == "transformers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("genkit.parts.packages.find_spec", lambda module: None)
    problem = next(extractor(folder="nowhere").check({}))
    assert problem.code == Code.MISSING_PACKAGE
    assert "pip install 'transformers>=" in problem.hint


def test_the_library_is_imported_only_where_it_is_used():
    code = (
        "import sys; import genkit_metrics.clip as c, genkit_metrics.dinov2 as d; "
        "c.Clip(folder='x'), d.Dinov2(folder='x'); sys.exit('transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)
