from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import genkit
from genkit.errors import Code, DataError
from genkit.interfaces import Design
from genkit.types import Batch, DataSpec
from genkit_data.cifar10 import CIFAR10
from genkit_data.cifar10_batches import BINARY
from genkit_data.handwritten import Digits
from genkit_data.points import Moons, SwissRoll
from genkit_data.real_and_fake import RealAndFake
from raising import raises_code


def fakes(count, shape=(2,), labels=True):
    data = (
        torch.arange(count, dtype=torch.float32).reshape(-1, *[1] * len(shape)).expand(-1, *shape)
    )
    return Batch(data.clone(), torch.arange(count) % 2 if labels else None)


def test_equal_counts_are_joined_as_they_are(with_samples):
    real, generated = Moons(items=4), fakes(4)
    batch = RealAndFake(real=real, fakes="fakes").load(with_samples(generated))
    assert torch.equal(batch.data, torch.cat([real.load(None).data, generated.data]))
    assert batch.realness.tolist() == [1] * 4 + [0] * 4
    assert batch.realness.dtype == torch.int64
    assert batch.labels is None


@pytest.mark.parametrize(("real", "fake"), [(3, 8), (8, 3), (1, 5), (6, 3)])
def test_both_sources_come_to_the_larger_count(with_samples, real, fake):
    dataset = RealAndFake(real=Moons(items=real), fakes="fakes")
    batch = dataset.load(with_samples(fakes(fake)))
    larger = max(real, fake)
    assert batch.realness.bincount().tolist() == [larger, larger]
    for source, count in ((1, real), (0, fake)):
        _, repeats = batch.data[batch.realness == source].unique(dim=0, return_counts=True)
        assert len(repeats) == count  # none is thrown away
        assert repeats.max() - repeats.min() <= 1


def test_extra_items_are_spread_over_the_order(with_samples):
    dataset = RealAndFake(real=Moons(items=150), fakes="fakes")
    generated = dataset.load(with_samples(fakes(100))).data[150:, 0]
    first, second = generated.unique(return_counts=True)[1].reshape(2, 50).sum(1)
    assert first == second  # data sorted by class keeps its balance


def test_labels_are_kept_on_demand(with_samples):
    dataset = RealAndFake(real=Moons(items=2), fakes="fakes", labels=True)
    assert dataset.load(with_samples(fakes(4))).labels.tolist() == [0, 0, 1, 1, 0, 1, 0, 1]


def test_spec():
    assert RealAndFake(real=Digits(), fakes="fakes").spec() == DataSpec((1, 8, 8), realness=True)
    with_labels = RealAndFake(real=Digits(), fakes="fakes", labels=True)
    assert with_labels.spec() == DataSpec((1, 8, 8), classes=10, realness=True)


def test_samples_without_labels(with_samples):
    dataset = RealAndFake(real=Moons(), fakes="fakes", labels=True)
    with raises_code(DataError, Code.MISSING_ATTRIBUTE, '"fakes"'):
        dataset.load(with_samples(fakes(4, labels=False)))


def test_real_data_without_labels(with_samples):
    dataset = RealAndFake(real=SwissRoll(), fakes="fakes", labels=True)
    with raises_code(DataError, Code.MISSING_ATTRIBUTE, "image"):
        dataset.load(with_samples(fakes(4)))


def test_samples_that_are_not_finite(with_samples):
    generated = fakes(4)
    generated.data[2, 1] = torch.nan
    with raises_code(DataError, Code.NOT_FINITE, "sample 2", "nan"):
        RealAndFake(real=Moons(), fakes="fakes").load(with_samples(generated))


def test_no_samples(with_samples):
    with raises_code(DataError, Code.WRONG_LENGTH, "0"):
        RealAndFake(real=Moons(), fakes="fakes").load(with_samples(fakes(0)))


def test_samples_of_another_shape(with_samples):
    dataset = RealAndFake(real=Digits(), fakes="fakes")
    with raises_code(DataError, Code.WRONG_SHAPE, "(1, 7, 7)", "(1, 8, 8)"):
        dataset.load(with_samples(fakes(4, shape=(1, 7, 7))))


def stages(conditional=True, data=None):
    """A stage that trains a denoiser and one that samples it, as far as a data set looks."""
    network = SimpleNamespace(class_conditional=conditional)
    design = Design(network, (data or Digits()).spec())
    return {
        "denoiser": SimpleNamespace(design=lambda earlier: design),
        "fakes": SimpleNamespace(drawn_by=lambda earlier: "denoiser"),
    }


def problems(earlier, **fields):
    dataset = RealAndFake(**{"real": Digits(), "fakes": "fakes"} | fields)
    return [(problem.key, problem.reason) for problem in dataset.check(earlier)]


@pytest.mark.parametrize(("share", "count"), [(0.0001, 600), (0.9999, 600), (0.5, 1)])
def test_a_part_without_fakes_is_refused_before_any_training(share, count):
    drawn = genkit.component("stage", "sample", denoiser="denoiser", count=count)
    dataset = RealAndFake(real=Moons(items=600), fakes="fakes", held_out=share)
    (problem,) = dataset.check({"fakes": drawn})
    assert (problem.key, problem.code) == (("held_out",), Code.WRONG_LENGTH)
    many = replace(drawn, count=10**12)  # more than fit into memory
    assert not list(replace(dataset, held_out=0.1).check({"fakes": many}))


def test_check_finds_nothing_wrong():
    assert problems(stages(), labels=True) == []
    assert problems(stages(conditional=False)) == []
    assert problems({}) == []  # a missing stage is the reference's mistake, reported by its type


def test_check_labels_of_real_data():
    for settings in ({"labels": True}, {"classes": "balanced"}):
        found = problems(stages(data=SwissRoll()), real=SwissRoll(), **settings)
        assert [key for key, _ in found] == [(*settings,)]


def test_check_labels_of_samples():
    ((key, reason),) = problems(stages(conditional=False), labels=True)
    assert key == ("labels",)
    assert "class-conditional" in reason


def test_check_shape_of_samples():
    ((key, reason),) = problems(stages(data=Moons()))
    assert key == ("fakes",)
    assert "(2,)" in reason
    assert "(1, 8, 8)" in reason
    assert problems(stages(data=Moons()), real=SwissRoll()) == []


def test_images_of_both_have_8_bits(with_samples, small_cifar10):
    small_cifar10.write(BINARY)
    real = CIFAR10(root=str(small_cifar10.root))
    generated = Batch(torch.linspace(-2, 2, 15).reshape(15, 1, 1, 1).expand(-1, 3, 32, 32))
    batch = RealAndFake(real=real, fakes="fakes").load(with_samples(generated))
    assert batch.data.dtype == torch.uint8
    assert torch.equal(batch.data[:15], real.load(None).data)
    levels = np.floor(np.clip(generated.data[:, 0, 0, 0].numpy() * 127.5 + 128, 0, 255))
    assert batch.data[15:, 0, 0, 0].tolist() == levels.tolist()


def classes_of(batch, source):
    return batch.labels[batch.realness == source].bincount().tolist()


@pytest.mark.parametrize(
    ("classes", "real", "fake"),
    [("as-drawn", [4, 4], [6, 2]), ("as-real", [4, 4], [4, 4]), ("balanced", [4, 4], [4, 4])],
)
def test_shares_of_classes_among_the_fakes(with_samples, classes, real, fake):
    generated = Batch(torch.arange(16.0).reshape(8, 2), torch.tensor([0, 0, 0, 1, 0, 0, 0, 1]))
    dataset = RealAndFake(real=Moons(items=8), fakes="fakes", labels=True, classes=classes)
    batch = dataset.load(with_samples(generated))
    assert (classes_of(batch, 1), classes_of(batch, 0)) == (real, fake)
    drawn = {
        tuple(x): int(y) for x, y in zip(generated.data.tolist(), generated.labels, strict=True)
    }
    chosen, labels = batch.data[8:].tolist(), batch.labels[8:].tolist()
    assert [drawn[tuple(x)] for x in chosen] == labels
    unlabelled = replace(dataset, labels=False).load(with_samples(generated))
    assert unlabelled.labels is None
    assert torch.equal(unlabelled.data, batch.data)


def test_real_items_are_balanced_too(with_samples):
    dataset = RealAndFake(real=Moons(items=5), fakes="fakes", labels=True, classes="balanced")
    batch = dataset.load(with_samples(fakes(3)))  # 3 and 2 real items, 2 and 1 fakes
    assert (classes_of(batch, 1), classes_of(batch, 0)) == ([3, 2], [3, 2])
    as_real = replace(dataset, classes="as-real").load(with_samples(fakes(9)))
    assert classes_of(as_real, 1) == classes_of(as_real, 0)


@pytest.mark.parametrize("settings", [{"labels": True}, {"classes": "as-real"}])
def test_a_class_that_one_source_lacks_is_refused(with_samples, settings):
    dataset = RealAndFake(real=Moons(items=8), fakes="fakes", **settings)
    one = Batch(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64))
    with raises_code(DataError, Code.MISSING_ATTRIBUTE, "1", '"fakes"'):
        dataset.load(with_samples(one))
    more = Batch(torch.zeros(6, 2), torch.tensor([0, 1, 2, 0, 1, 2]))
    with raises_code(DataError, Code.MISSING_ATTRIBUTE, "2", "real"):
        dataset.load(with_samples(more))


def test_a_class_that_the_held_out_part_lacks_is_refused_before_training(with_samples):
    # Two items of each source are held out, and an eighth of the samples have class 1.
    labels = (torch.arange(40) % 8 == 0).long()
    generated = Batch(torch.zeros(40, 2), labels)
    dataset = RealAndFake(real=Moons(items=40), fakes="fakes", labels=True, held_out=0.05)
    with raises_code(DataError, Code.MISSING_ATTRIBUTE, "held-out", "held_out"):
        dataset.load(with_samples(generated))
    replace(dataset, held_out=0.5).load(with_samples(generated))


@pytest.mark.parametrize("share", [0.1, 0.25, 0.3])
def test_a_part_of_both_sources_is_held_out(with_samples, share):
    whole, dataset = (
        RealAndFake(real=Moons(items=200), fakes="fakes", held_out=h) for h in (0, share)
    )
    rest, held_out = dataset, dataset.held_out_part()
    assert whole.held_out_part() is None
    loaded = [part.load(with_samples(fakes(200))) for part in (whole, rest, held_out)]
    sources = [part.realness.bincount().tolist() for part in loaded]
    assert sources == [[n, n] for n in (200, 200 - round(200 * share), round(200 * share))]
    everything = loaded[0].data.unique(dim=0)
    assert len(torch.cat([part.data for part in loaded[1:]]).unique(dim=0)) == len(everything)


def test_no_item_is_held_out(with_samples):
    dataset = RealAndFake(real=Moons(items=4), fakes="fakes", held_out=0.1)
    for part in (dataset, dataset.held_out_part()):  # the former is loaded before training
        with raises_code(DataError, Code.WRONG_LENGTH, "held-out", "image"):
            part.load(with_samples(fakes(4)))
    with raises_code(DataError, Code.WRONG_LENGTH, "held-out", '"fakes"'):
        replace(dataset, real=Moons(items=40)).load(with_samples(fakes(4)))
    (problem,) = RealAndFake(real=Moons(items=4), fakes="fakes", part="held-out").check({})
    assert problem.key == ("held_out",)


def test_what_is_held_out_is_of_all_classes_where_classes_come_in_turn(with_samples):
    dataset = RealAndFake(real=Moons(items=200), fakes="fakes", labels=True, held_out=0.1)
    batch = dataset.held_out_part().load(with_samples(fakes(200)))
    assert min(*classes_of(batch, 1), *classes_of(batch, 0)) >= 5
