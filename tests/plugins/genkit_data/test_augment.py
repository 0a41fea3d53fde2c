from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from genkit.errors import Code, DataError, SettingError
from genkit.tensors import load
from genkit.testing import check_augmentation
from genkit.types import Batch
from genkit_data.augment import Changes, EdmAugmentation
from genkit_data.augment_warp import SYM6, warp
from raising import raises_code

DATA = Path(__file__).parents[2] / "data"
SIZE = 32


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=8, shape=(3, SIZE, SIZE), dtype=torch.float32):
    return torch.rand((count, *shape), generator=draws(7)).to(dtype) * 2 - 1


def changes(count=1, **made):
    """Return the changes of some images: none but those that are given."""
    zero = torch.zeros(count, dtype=torch.float64)
    nothing = Changes(**dict.fromkeys(Changes.__dataclass_fields__, zero))
    return replace(nothing, **{name: zero + value for name, value in made.items()})


def blob(size=SIZE, x=0.0, y=0.0, narrow=(1.0, 1.0), angle=0.0, width=3.0):
    """Return a Gaussian at (x, y) from the centre, x to the right and y down, ``[1, 1, H, W]``.

    Its width is ``width / narrow`` along two axes, the first turned counter-clockwise from the
    right by ``angle``.
    """
    place = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    dx, dy = place - x, (place - y)[:, None]
    first = (dx * math.cos(angle) - dy * math.sin(angle)) * narrow[0]
    second = (dx * math.sin(angle) + dy * math.cos(angle)) * narrow[1]
    return torch.exp(-(first**2 + second**2) / (2 * width**2))[None, None]


def assert_close(after, wanted, atol=0.015):
    """Compare away from the borders, where the closed forms do not know of reflections.

    Two things are not exact: reading between samples is linear, and the filter is not quite
    symmetric, which moves what is turned by a small part of a pixel.
    """
    inner = slice(6, -6)
    torch.testing.assert_close(
        after[..., inner, inner], wanted[..., inner, inner], rtol=0, atol=atol
    )


def test_laws():
    check_augmentation(EdmAugmentation())
    check_augmentation(EdmAugmentation(probability=1.0))


def test_probability_0_leaves_images_and_tells_zeros():
    batch = Batch(images(100), labels=torch.arange(100))
    after = EdmAugmentation(probability=0.0).augment(batch, draws())
    assert torch.equal(after.data, batch.data)
    assert torch.equal(after.augment_labels, torch.zeros(100, 9))
    assert after.labels is batch.labels


def test_flips_are_exact():
    batch = images(400)
    augmentation = EdmAugmentation(
        probability=0.5, y_flip=2.0, scale=0.0, rotation=0.0, anisotropy=0.0, translation=0.0
    )
    after = augmentation.augment(Batch(batch), draws())
    x, y = (after.augment_labels[:, k] == 1 for k in (0, 1))
    assert set(after.augment_labels[:, :2].flatten().tolist()) == {0.0, 1.0}
    for mirrored, dimensions in ((x & ~y, [3]), (y & ~x, [2]), (x & y, [2, 3]), (~x & ~y, [])):
        assert 70 < int(mirrored.sum()) < 130
        assert torch.equal(after.data[mirrored], batch[mirrored].flip(dimensions))
    assert not after.augment_labels[:, 2:].any()


def test_images_and_labels_are_those_of_the_reference():
    golden, settings = load(DATA / "augment.safetensors")
    made = Changes(**{name: golden[name] for name in Changes.__dataclass_fields__})
    stds = ("scale_std", "anisotropy_std", "translation_std")
    augmentation = EdmAugmentation(**{name: float(settings[name]) for name in stds})
    torch.testing.assert_close(made.labels(), golden["labels"], rtol=0, atol=1e-6)
    # In float64, except for the reference's filter, which has the precision of float32.
    after = augmentation.apply(golden["images"], made)
    torch.testing.assert_close(after, golden["after"], rtol=0, atol=5e-7)
    after = augmentation.apply(golden["images"].float(), made)
    torch.testing.assert_close(after, golden["after"].float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(SIZE, SIZE), (8, 13)])
@pytest.mark.parametrize(
    ("right", "down"), [(3, 0), (0, -5), (-7, 9), (31, 0), (40, -45), (-12, 10), (0, 150)]
)
def test_a_shift_by_whole_pixels_reads_one_reflection_and_zeros_beyond(right, down, shape):
    height, width = shape
    before = images(2, (3, height, width), dtype=torch.float64)
    shifted = changes(2, right=right / width, down=down / height)
    after = EdmAugmentation(translation_std=1.0).apply(before, shifted)

    padded = F.pad(before, (width - 1, width - 1, height - 1, height - 1), mode="reflect")
    read, settled = [], []
    for size, shift in ((height, down), (width, right)):
        at = torch.arange(size) - shift + size - 1  # in the padded image
        last = 3 * (size - 1)
        read.append(at.clamp(-1, last + 1))  # one pixel before and behind for all that are 0
        # The filter mixes three pixels on either side of an end of the padding.
        settled.append(((at + 0.5).abs() > 3) & ((at - last - 0.5).abs() > 3))
    beyond = F.pad(padded, (1, 1, 1, 1))
    wanted = beyond[:, :, read[0] + 1][:, :, :, read[1] + 1]
    compared = settled[0][:, None] & settled[1]
    assert compared.any()
    torch.testing.assert_close(after[..., compared], wanted[..., compared], rtol=0, atol=1e-11)


def test_strong_shrinking_leaves_0_around_the_padded_image():
    before = torch.ones((1, 1, SIZE, SIZE), dtype=torch.float64)
    after = EdmAugmentation(scale_std=1.0).apply(before, changes(scale=-3))
    shown = (3 * SIZE - 2) / 8  # the padded image at an eighth of its size: 12 pixels
    outside = int((SIZE - shown) / 2) - 3  # three pixels of the filter's reach
    assert not after[..., :outside, :].any()
    assert not after[..., -outside:].any()
    middle = after[..., 14:18, 14:18]
    torch.testing.assert_close(middle, torch.ones_like(middle), rtol=0, atol=1e-9)
    # Every fourth pixel of the padded image is read, so its borders are found to half a pixel.
    assert math.sqrt(after.sum()) == pytest.approx(shown, abs=0.5)


def test_a_shift_by_whole_pixels_is_as_exact_as_float32():
    before = images()
    shifted = changes(8, right=3 / SIZE, down=-2 / SIZE)
    after = EdmAugmentation(translation_std=1.0).apply(before, shifted)
    torch.testing.assert_close(after[:, :, :-2, 3:], before[:, :, 2:, :-3], rtol=0, atol=2e-5)


@pytest.mark.parametrize("quarters", [1, 2, -1])
def test_a_quarter_turn_goes_counter_clockwise(quarters):
    before = blob(x=4, y=-2) + blob(x=-5, y=-6) / 2
    turned = EdmAugmentation().apply(before, changes(angle=quarters * math.pi / 2))
    assert_close(turned, before.rot90(quarters, (2, 3)), atol=0.03)


def test_a_turn_by_any_angle():
    angle = 0.7
    turned = EdmAugmentation().apply(blob(x=6, y=0), changes(angle=angle))
    wanted = blob(x=6 * math.cos(angle), y=-6 * math.sin(angle))
    assert_close(turned, wanted)


@pytest.mark.parametrize("scale", [1.5, -1.0])
def test_scaling(scale):
    factor = 2 ** (0.2 * scale)
    scaled = EdmAugmentation().apply(blob(x=3, y=-4), changes(scale=scale))
    wanted = blob(x=3 * factor, y=-4 * factor, narrow=(1 / factor, 1 / factor))
    assert_close(scaled, wanted)


@pytest.mark.parametrize("axis", [0.0, 0.6, -2.0])
def test_a_stretch_along_an_axis_shrinks_across_it(axis):
    factor = 2 ** (0.2 * 1.5)
    stretched = EdmAugmentation().apply(blob(), changes(stretch=1.5, axis=axis))
    wanted = blob(narrow=(1 / factor, factor), angle=axis)
    assert_close(stretched, wanted)


def test_a_shift_between_pixels_after_all_else():
    made = changes(angle=0.5, scale=1.0, right=0.8, down=-0.4)
    after = EdmAugmentation().apply(blob(x=4), made)
    factor = 2**0.2
    wanted = blob(
        x=4 * factor * math.cos(0.5) + 0.8 * 4,
        y=-4 * factor * math.sin(0.5) - 0.4 * 4,
        narrow=(1 / factor, 1 / factor),
    )
    assert_close(after, wanted)


def test_what_is_told():
    told = changes(
        x_flip=1, scale=0.3, angle=0.5, stretch=2.0, axis=0.25, right=-0.7, down=1.5
    ).labels()
    wanted = [1, 0, 0.3, math.cos(0.5) - 1, math.sin(0.5)]
    wanted += [2 * math.cos(0.25), 2 * math.sin(0.25), -0.7, 1.5]
    assert told.dtype == torch.float32
    assert told.tolist() == [pytest.approx(wanted)]


def test_what_is_told_undoes_the_change():
    batch = Batch(torch.cat([blob(x=2, y=1) + blob(x=-3, y=5)] * 200))
    once = EdmAugmentation(
        probability=1.0, scale=0.0, anisotropy=0.0, translation_std=0.02
    ).augment(batch, draws())
    told = once.augment_labels.double()
    x_flip, y_flip = told[:, 0], told[:, 1]
    angle, shift = torch.atan2(told[:, 4], told[:, 3] + 1), told[:, 7:] * SIZE * 0.02
    turn = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], 1).reshape(-1, 2, 2)
    # A pixel of the origin is found where the turn and then the shift took it.
    undone = warp(once.data, turn, shift)
    undone = torch.where(y_flip[:, None, None, None] == 1, undone.flip(2), undone)
    undone = torch.where(x_flip[:, None, None, None] == 1, undone.flip(3), undone)
    assert_close(undone, batch.data, atol=0.03)


def test_how_often_each_change_is_made_and_how_strongly():
    count = 20_000
    drawn = EdmAugmentation().draw(count, draws())
    made = {name: float((values != 0).float().mean()) for name, values in vars(drawn).items()}
    assert made["x_flip"] == pytest.approx(0.5, abs=0.02)
    assert made["y_flip"] == pytest.approx(0.06, abs=0.01)
    assert made["axis"] == pytest.approx(0.5, abs=0.02)
    for name in ("scale", "angle", "stretch", "right", "down"):
        assert made[name] == pytest.approx(0.12, abs=0.01)
    assert torch.equal(drawn.right != 0, drawn.down != 0)
    for name in ("scale", "stretch", "right", "down"):
        values = getattr(drawn, name)[getattr(drawn, name) != 0]
        assert float(values.mean()) == pytest.approx(0, abs=0.08)
        assert float(values.std()) == pytest.approx(1, abs=0.05)
    angles = drawn.angle[drawn.angle != 0]
    assert float(angles.abs().max()) <= math.pi
    assert float(angles.std()) == pytest.approx(math.pi / math.sqrt(3), rel=0.05)
    both = (drawn.scale != 0) & (drawn.angle != 0)
    assert float(both.float().mean()) == pytest.approx(0.12**2, abs=0.004)


def test_multipliers():
    drawn = EdmAugmentation(
        probability=0.1, x_flip=0.0, y_flip=0.0, scale=0.0, rotation=5.0, anisotropy=0.0
    ).draw(5_000, draws())
    for name in ("x_flip", "y_flip", "scale", "stretch"):
        assert not getattr(drawn, name).any()
    assert float((drawn.angle != 0).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert float((drawn.right != 0).float().mean()) == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 20, 32), (4, 5, 3), (1, 1, 1), (1, 2, 1)])
def test_any_shape_of_image(shape):
    before = images(5, shape)
    after = EdmAugmentation(probability=1.0).augment(Batch(before), draws())
    assert after.data.shape == before.shape
    assert torch.isfinite(after.data).all()


def test_a_constant_image_stays_within_its_reflection():
    constant = torch.full((20, 2, 20, 32), 0.5)
    augmentation = EdmAugmentation(probability=1.0, scale=0.0, anisotropy=0.0, translation_std=0.02)
    after = augmentation.augment(Batch(constant), draws())
    torch.testing.assert_close(after.data, constant, rtol=0, atol=1e-5)


def test_an_image_does_not_depend_on_the_others():
    before = images(150)
    augmentation = EdmAugmentation(probability=1.0)
    drawn = augmentation.draw(150, draws())
    alone = Changes(**{name: values[100:101] for name, values in vars(drawn).items()})
    together = augmentation.apply(before, drawn)
    torch.testing.assert_close(
        augmentation.apply(before[100:101], alone), together[100:101], rtol=0, atol=1e-5
    )


def test_the_filter_is_orthogonal_and_keeps_means():
    taps = torch.tensor(SYM6, dtype=torch.float64)
    for shift in range(6):
        product = float(taps[2 * shift :] @ taps[: len(taps) - 2 * shift])
        assert product == pytest.approx(float(shift == 0), abs=1e-11)
    assert float(taps[::2].sum()) == pytest.approx(math.sqrt(0.5), abs=1e-11)
    assert float(taps[1::2].sum()) == pytest.approx(math.sqrt(0.5), abs=1e-11)


def test_vectors_cannot_be_turned():
    with raises_code(DataError, Code.WRONG_SHAPE, '"edm"', "(2,)"):
        EdmAugmentation().augment(Batch(torch.rand(3, 2)), draws())


@pytest.mark.parametrize("wrong", [{"probability": 1.5}, {"scale": -1.0}, {"scale_std": -0.1}])
def test_values_out_of_range(wrong):
    with raises_code(SettingError, Code.OUT_OF_RANGE):
        EdmAugmentation(**wrong)
