from __future__ import annotations

import torch

from genkit.errors import Code, DataError
from genkit.interfaces import Dataset
from genkit.plugin.manager import load_plugins
from genkit.recipe.decode import component
from genkit.testing import check_dataset
from genkit_data.cifar10 import CIFAR10
from genkit_data.cifar10_batches import BINARY
from genkit_data.handwritten import Digits
from genkit_data.mirrored import Mirrored
from genkit_data.points import Moons
from raising import raises_code


def test_all_images_then_all_mirror_images(inputs):
    once, twice = Digits().load(inputs), Mirrored(inner=Digits()).load(inputs)
    check_dataset(Mirrored(inner=Digits()))
    assert len(twice) == 2 * len(once)
    assert torch.equal(twice.data[: len(once)], once.data)
    assert torch.equal(twice.data[len(once) :], once.data.flip(3))
    assert torch.equal(twice.labels, once.labels.repeat(2))


def test_bytes_stay_bytes_and_the_cache_as_it_is(small_cifar10, inputs):
    small_cifar10.write(BINARY)
    inner = CIFAR10(root=str(small_cifar10.root))
    dataset = Mirrored(inner=inner)
    before = inner.load(inputs).data.clone()
    batch = dataset.load(inputs)
    assert batch.data.dtype == torch.uint8
    assert torch.equal(batch.data, torch.cat([before, before.flip(3)]))
    assert torch.equal(inner.load(inputs).data, before)
    assert (dataset.spec(), dataset.version()) == (inner.spec(), inner.version())


def test_in_a_recipe():
    table = {"use": "mirrored", "inner": {"use": "digits"}}
    assert component(load_plugins().registry, "dataset", table) == Mirrored(inner=Digits())


def test_points_have_no_mirror_image(inputs):
    dataset = Mirrored(inner=Moons())
    ((key, reason),) = [(problem.key, problem.reason) for problem in dataset.check({})]
    assert key == ("inner",)
    assert "(2,)" in reason
    with raises_code(DataError, Code.WRONG_SHAPE, '"mirrored"', "(2,)"):
        dataset.load(inputs)


def test_data_that_cannot_be_read_is_told_once(tmp_path):
    dataset = Mirrored(inner=CIFAR10(root=str(tmp_path)))
    assert list(dataset.check({})) == []
    with raises_code(DataError, Code.NOT_FOUND):
        dataset.spec()
    assert isinstance(dataset, Dataset)
