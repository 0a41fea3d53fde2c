"""Data from Python: tensors, arrays, and data sets of other libraries."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import genkit
from genkit.errors import Code, DataError, RecipeError
from genkit.items import Items
from raising import raises_code

pytestmark = pytest.mark.usefixtures("coarse_pictures")

BYTES = torch.randint(256, (6, 3, 8, 7), generator=torch.Generator().manual_seed(0)).byte()
POINTS = torch.randn(200, 2, generator=torch.Generator().manual_seed(1)) / 2
LABELS = torch.arange(200) % 3
STAGES = [
    {
        "id": "denoiser",
        "use": "train",
        "images": 256,
        "batch_size": 64,
        "network": {"use": "mlp", "width": 8},
        "objective": "denoising",
    },
    {"id": "samples", "use": "sample", "denoiser": "denoiser", "count": 4},
]
RECIPE = genkit.Recipe(name="own", stage=STAGES)


class MapStyle:
    """Like many data sets of PyTorch, has a length and never raises IndexError."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index % len(self.rows)]


class Unreadable(MapStyle):
    def __getitem__(self, index):
        if index == 3:
            raise OSError("image file is truncated")
        return self.rows[index]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(BYTES)


class StreamWithLength(Stream):
    def __len__(self):
        return len(BYTES)


def picture(mode="RGB"):
    return Image.new(mode, (7, 8))


# --- what is read ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        BYTES,
        BYTES.numpy(),
        BYTES.movedim(1, -1),
        TensorDataset(BYTES),
        list(BYTES),
        Stream(),
        StreamWithLength(),
        MapStyle([{"image": Image.fromarray(i.movedim(0, -1).numpy())} for i in BYTES]),
    ],
)
def test_bytes_are_the_same_from_every_source(data):
    items = Items.of(data)
    assert torch.equal(items.batch.data, BYTES)
    assert (items.batch.labels, items.classes) == (None, 0)
    assert items.digest() == Items.of(BYTES).digest()


@pytest.mark.parametrize(
    ("data", "labels"),
    [
        (POINTS, LABELS),
        (POINTS.double().numpy(), LABELS.numpy().astype(np.uint8)),
        (POINTS.clone().requires_grad_(), LABELS.tolist()),
        (TensorDataset(POINTS, LABELS), None),
        (MapStyle([{"image": POINTS[k].tolist(), "label": k % 3} for k in range(200)]), None),
    ],
)
def test_vectors_and_labels(data, labels):
    items = Items.of(data, labels)
    assert torch.equal(items.batch.data, POINTS)
    assert torch.equal(items.batch.labels, LABELS)
    assert items.classes == 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_floats_become_float32(dtype):
    images = (BYTES / 127.5 - 1).to(dtype)
    assert torch.equal(Items.of(images).batch.data, images.float())


def test_images_of_pillow_in_gray_have_one_channel():
    assert Items.of([picture("L")] * 3).batch.data.shape == (3, 1, 8, 7)
    assert Items.of([picture("RGBA")] * 3).batch.data.shape == (3, 3, 8, 7)


def test_a_data_set_of_hugging_face_has_the_classes_that_it_declares():
    datasets = pytest.importorskip("datasets")
    columns = {"image": [picture()] * 2, "label": [0, 1]}
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=5)}
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    items = Items.of(table)
    assert items.batch.data.shape == (2, 3, 8, 7)
    assert (items.batch.labels.tolist(), items.classes) == ([0, 1], 5)


def test_a_warning_about_images_from_0_to_1():
    with pytest.warns(UserWarning, match="2 \\* data - 1"):
        Items.of(BYTES / 255)


# --- what is refused ------------------------------------------------------------------------


def with_value(value, index=3):
    points = POINTS.clone()
    points[index, 1] = value
    return points


def images_with(value):
    images = torch.zeros(5, 1, 8, 8).sub(0.5)
    images[3, 0, 2, 1] = value
    return images


@pytest.mark.parametrize(
    ("data", "labels", "reason"),
    [
        (with_value(torch.nan), None, (Code.NOT_FINITE, "vector 3 of 200", "nan")),
        (images_with(-torch.inf), None, (Code.NOT_FINITE, "image 3 of 5", "-inf")),
        (images_with(255.0), None, (Code.OUT_OF_RANGE, "image 3", "0 to 255")),
        ([*BYTES, BYTES[0, :, 1:]], None, (Code.WRONG_SHAPE, "item 6", "(3, 7, 7)")),
        ([BYTES[0], BYTES[1].float()], None, (Code.WRONG_SHAPE, "item 1", "float32")),
        ([picture(), picture("L")], None, (Code.WRONG_SHAPE, "item 1", "(8, 7, 1)")),
        ([picture("I;16")] * 2, None, (Code.WRONG_TYPE, "uint16")),
        (BYTES.long(), None, (Code.WRONG_TYPE, "int64")),
        (BYTES > 0, None, (Code.WRONG_TYPE, "bool")),
        (torch.eye(9).to_sparse(), None, (Code.WRONG_TYPE, "torch.sparse_coo", "to_dense")),
        (POINTS.to("meta"), None, (Code.WRONG_TYPE, "meta")),
        (BYTES[:, 0, 0], None, (Code.WRONG_TYPE, "floats", "uint8")),
        (BYTES[:, :, :3, :3], None, (Code.WRONG_SHAPE, "(6, 3, 3, 3)", "write")),
        (BYTES[:, 0], None, (Code.WRONG_SHAPE, "(6, 8, 7)", "[N, 1, H, W]")),
        (POINTS[:, 0], None, (Code.WRONG_SHAPE, "(200,)", "[N, D]")),
        (POINTS[:0], None, (Code.WRONG_SHAPE, "(0, 2)")),
        ([], None, (Code.WRONG_LENGTH, "0", "pass")),
        ([{"img": picture()}], None, (Code.NOT_FOUND, "item 0", '"image"', "img")),
        ([(1, 2, 3)], None, (Code.WRONG_LENGTH, "item 0", "3", "remove")),
        ([(BYTES[0], 0), (BYTES[1], "cat")], None, (Code.WRONG_TYPE, "item 1", "'cat'", "write")),
        ([(BYTES[0], 0), BYTES[1]], None, (Code.WRONG_TYPE, "item 1", "None")),
        (TensorDataset(POINTS, LABELS), LABELS, (Code.CONFLICT, "labels")),
        (POINTS, LABELS[1:], (Code.WRONG_LENGTH, "labels", "200", "199", "pass")),
        (POINTS, LABELS - 1, (Code.OUT_OF_RANGE, "labels", "item 0", "-1", "from 0")),
        (POINTS, LABELS / 2, (Code.WRONG_SHAPE, "labels", "float32", "write")),
        (DataLoader(TensorDataset(POINTS)), None, (Code.WRONG_TYPE, "DataLoader", "dataset")),
        (
            Unreadable(BYTES),
            None,
            (Code.UNREADABLE, "item 3", "Unreadable", "OSError", "truncated"),
        ),
        ((1 / k for k in (1, 0)), None, (Code.UNREADABLE, "item 1", "ZeroDivisionError")),
        ({"train": POINTS}, None, (Code.WRONG_TYPE, "dict", "data['train']")),
        ("cifar10", None, (Code.WRONG_TYPE, "str")),
        (3, None, (Code.WRONG_TYPE, "int")),
    ],
)
def test_data_that_does_not_fit_is_refused(data, labels, reason):
    with raises_code(DataError, *reason):
        Items.of(data, labels)


def test_a_run_of_data_that_does_not_fit_writes_nothing(tmp_path):
    with raises_code(DataError, Code.NOT_FINITE, "vector 3"):
        genkit.run_recipe(RECIPE, out=tmp_path / "run", data=with_value(torch.nan))
    with raises_code(DataError, Code.CONFLICT, "labels"):
        genkit.run_recipe(RECIPE, out=tmp_path / "run", labels=LABELS)
    for key, value in (("data", "moons"), ("data.items", 3)):
        with raises_code(DataError, Code.CONFLICT, "settings", key):
            settings = {key: value}
            genkit.run_recipe(RECIPE, out=tmp_path / "run", settings=settings, data=POINTS)
    assert not (tmp_path / "run").exists()


def test_a_mistake_of_the_recipe_writes_no_data(tmp_path):
    settings = {"denoiser.network": {"use": "ddpmpp"}}
    with pytest.raises(RecipeError):
        genkit.run_recipe(RECIPE, out=tmp_path / "run", settings=settings, data=POINTS)
    assert not (tmp_path / "run").exists()


# --- runs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("items") / "run"
    genkit.run_recipe(RECIPE, out=folder, data=POINTS, labels=LABELS, device="cpu")
    return folder


def test_tensors_have_the_bits_of_the_same_file(run, tmp_path):
    np.savez(tmp_path / "own.npz", images=POINTS.numpy(), labels=LABELS.numpy())
    recipe = {**RECIPE.table, "data": {"use": "npz", "path": str(tmp_path / "own.npz")}}
    (tmp_path / "own.toml").write_text(tomli_w.dumps(recipe), encoding="utf-8")
    of_file = genkit.run_recipe(tmp_path / "own.toml", out=tmp_path / "run", device="cpu").folder
    for name in ("01-denoiser/denoiser.safetensors", "02-samples/samples.safetensors"):
        assert (run / name).read_bytes() == (of_file / name).read_bytes()


def test_the_same_content_resumes_and_other_content_trains_again(run, capsys):
    def again(data):
        before = (run / "01-denoiser" / "state.json").read_text()
        result = genkit.run_recipe(RECIPE, out=run, data=data, labels=LABELS, device="cpu")
        return (result.folder / "01-denoiser" / "state.json").read_text() == before

    assert again(POINTS.numpy())
    assert not again(with_value(0.25))
    assert len(list(run.glob("data-*.safetensors"))) == 2
    assert not again(POINTS)  # the result of these settings is back


def test_a_run_is_resumed_from_the_command_line(run, genkit_):
    code, _, err = genkit_("run", run / "resolved.toml", "--out", run, "--device", "cpu")
    assert (code, err.count("finished before")) == (0, 2)


def test_the_recipe_in_a_run_has_the_items_that_it_was_run_with(run, tmp_path, genkit_):
    text = (run / "recipe.toml").read_text()
    table = tomllib.loads(text)
    assert text.startswith("# data: ")
    assert {**table, "data": None} == {**RECIPE.table, "data": None}
    assert (table["data"]["use"], table["data"]["items"]) == ("tensors", len(POINTS))
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    code, _, err = genkit_("run", moved / "recipe.toml", "--out", moved, "--device", "cpu")
    assert (code, err.count("finished before")) == (0, 2)
    (moved / table["data"]["path"]).unlink()
    arguments = ("--out", tmp_path / "again", "--device", "cpu")
    code, _, err = genkit_("run", moved / "recipe.toml", *arguments)
    assert (code, "run the script again" in err) == (2, True)


@pytest.mark.parametrize("damage", ["cut off", "changed", "other items"])
def test_a_damaged_data_file_is_written_again(tmp_path, damage):
    items = Items.of(POINTS)
    table = items.table(tmp_path)
    items.write(table)
    file = Path(table["path"])
    content = file.read_bytes()
    if damage == "other items":
        Items.of(POINTS[1:]).write({**table, "sha256": ""})
    else:
        file.write_bytes(content[:-100] + bytes(100 if damage == "changed" else 0))
    assert file.read_bytes() != content
    items.write(table)
    assert file.read_bytes() == content


def test_a_run_without_its_data_is_refused(run, tmp_path, genkit_):
    (file,) = [f for f in run.glob("data-*") if f.name in (run / "resolved.toml").read_text()]
    kept = file.read_bytes()
    try:
        file.unlink()
        arguments = ("run", run / "resolved.toml", "--out", tmp_path / "again", "--device", "cpu")
        code, _, err = genkit_(*arguments)
        assert (code, "run the script again" in err) == (2, True)
        Items.of(POINTS[1:], LABELS[1:]).write({"path": str(file)})
        code, _, err = genkit_(*arguments)
        assert (code, "SHA-256" in err) == (2, True)
    finally:
        file.write_bytes(kept)


def test_a_shipped_recipe_trains_on_own_data(tmp_path):
    settings = {
        "denoiser.images": 256,
        "denoiser.batch_size": 64,
        "denoiser.pool_size": 64,
        "denoiser.network.width": 8,
        "samples.count": 16,
        "scores.metrics": [{"use": "frechet", "extractor": "pixels"}],
    }
    result = genkit.run_recipe("smoke", out=tmp_path / "run", settings=settings, data=POINTS)
    assert result.scores["scores"][0]["frechet_pixels"] > 0


def test_a_file_of_something_else_is_refused(tmp_path):
    from genkit.tensors import save

    save(tmp_path / "other.safetensors", {"weights": POINTS}, {})
    with raises_code(DataError, Code.WRONG_KIND, "other.safetensors"):
        Items.read(tmp_path / "other.safetensors")
