from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from genkit.errors import Code, DataError, SettingError
from genkit.types import DataSpec
from genkit_edm.edm import EdmPreconditioner
from genkit_edm.unet.denoisers import Ddpmpp
from raising import raises_code

RGB = DataSpec((3, 8, 8), classes=4)


def tiny(**settings) -> Ddpmpp:
    chosen = {"channels": 16, "channel_mult": (1, 2), "blocks": 1, "attention": (4,), **settings}
    return Ddpmpp(preconditioner=EdmPreconditioner(), **chosen)


def build(spec: DataSpec = RGB, **settings) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return tiny(**settings).build(spec)


def inputs(spec: DataSpec = RGB, batch: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, *spec.shape, generator=generator)
    return x, torch.tensor([0.1, 1.0, 10.0])[:batch], torch.tensor([0, 3, 1])[:batch]


def randomise(model: nn.Module) -> None:
    """Give every weight a size that shows: what starts at 1e-5 would hide what it is told."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.1, generator=generator)


def test_the_paper_has_as_many_weights_for_cifar10() -> None:
    with torch.device("meta"):
        model = Ddpmpp(preconditioner=EdmPreconditioner(), dropout=0.13).build(
            DataSpec((3, 32, 32), augment_labels=9)
        )
    assert sum(p.numel() for p in model.parameters()) == 55_733_891


@pytest.mark.parametrize(
    ("shape", "mult"), [((1, 28, 28), (1, 2, 2)), ((3, 8, 16), (1, 2)), ((2, 5, 7), (1,))]
)
def test_the_result_has_the_shape_of_the_input(shape: tuple[int, ...], mult: tuple) -> None:
    spec = DataSpec(shape)
    x, sigma, _ = inputs(spec)
    assert build(spec, channel_mult=mult, channels=8)(x, sigma, None).shape == x.shape


def test_width_that_group_normalisation_does_not_divide_evenly() -> None:
    x, sigma, _ = inputs()
    assert build(channels=37, channel_mult=(1, 4))(x, sigma, None).shape == x.shape


def test_gradient_reaches_every_parameter() -> None:
    model = build(class_conditional=True)
    model(*inputs()).square().sum().backward()
    unreached = [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert unreached == []


def test_the_untrained_network_adds_almost_nothing() -> None:
    x, sigma, _ = inputs()
    c = EdmPreconditioner().coefficients(sigma)
    expected = c.c_skip[:, None, None, None] * x
    torch.testing.assert_close(build()(x, sigma, None), expected, rtol=0, atol=1e-3)


def test_an_unconditional_network_ignores_labels() -> None:
    x, sigma, labels = inputs()
    model = build().eval()
    assert torch.equal(model(x, sigma, labels), model(x, sigma, None))


def test_a_conditional_network_tells_classes_apart() -> None:
    x, sigma, labels = inputs()
    model = build(class_conditional=True).eval()
    assert not torch.equal(model(x, sigma, labels), model(x, sigma, labels.flip(0)))
    with raises_code(DataError, Code.MISSING_ATTRIBUTE, "0 to 3"):
        model(x, sigma, None)


def test_classes_can_be_weights() -> None:
    x, sigma, labels = inputs()
    model = build(class_conditional=True).eval()
    randomise(model)
    one_hot = torch.eye(4)[labels]
    assert torch.equal(model(x, sigma, one_hot), model(x, sigma, labels))
    mixed = model(x, sigma, (one_hot + one_hot.flip(0)) / 2)
    assert not torch.allclose(mixed, model(x, sigma, labels))
    with raises_code(DataError, Code.WRONG_SHAPE, "[3, 5]", "[3, 4]"):
        model(x, sigma, torch.ones(3, 5))


def test_label_dropout_hides_classes_in_training_and_makes_none_a_choice() -> None:
    x, sigma, labels = inputs()
    model = build(class_conditional=True, label_dropout=0.999).eval()
    randomise(model)
    hidden = model(x, sigma, None)
    assert torch.equal(hidden, model(x, sigma, torch.zeros(3, 4)))
    assert not torch.allclose(hidden, model(x, sigma, labels))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.testing.assert_close(model.train()(x, sigma, labels), hidden)


def test_augmentation_labels_are_told_and_none_is_zeros() -> None:
    x, sigma, _ = inputs()
    model = build(DataSpec((3, 8, 8), augment_labels=9)).eval()
    randomise(model)
    plain = model(x, sigma, None)
    assert torch.equal(plain, model(x, sigma, None, torch.zeros(3, 9)))
    assert not torch.allclose(plain, model(x, sigma, None, torch.ones(3, 9)))


def test_autocast_leaves_the_condition_in_float32_and_the_rest_close() -> None:
    x, sigma, labels = inputs()
    told = torch.rand(3, 9, generator=torch.Generator().manual_seed(3))
    model = build(DataSpec((3, 8, 8), 4, augment_labels=9), class_conditional=True).eval()
    wide = model(x, sigma, labels, told)
    condition = model.network.conditioning(sigma, labels, told)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.network.conditioning(sigma, labels, told), condition)
        low = model(x, sigma, labels, told)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, wide, rtol=0.02, atol=0.02)


def test_a_network_for_plain_data_refuses_augmentation_labels() -> None:
    x, sigma, _ = inputs()
    with raises_code(DataError, Code.CONFLICT, "augment_labels"):
        build()(x, sigma, None, torch.zeros(3, 9))


def test_attention_is_where_it_is_asked_for() -> None:
    def attending(model: nn.Module) -> int:
        return sum(name.endswith(".qkv.weight") for name, _ in model.named_parameters())

    # One block in the middle always; a level adds its encoder blocks and one of its decoder.
    assert attending(build(attention=())) == 1
    assert attending(build(attention=(4,), blocks=2)) == 1 + 3
    assert attending(build(attention=(8, 4), blocks=2)) == 1 + 6


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_attention_is_given_what_its_fused_kernels_take(layout, monkeypatch) -> None:
    """On a GPU all but the slowest kernel need the elements of a vector side by side."""
    strides = []

    def attend(*parts: Tensor) -> Tensor:
        strides.extend(part.stride(-1) for part in parts)
        return attention(*parts)

    attention = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)
    x, sigma, _ = inputs()
    build().to(memory_format=layout)(x.to(memory_format=layout), sigma, None)
    assert set(strides) == {1}


def test_dropout_acts_in_training_only() -> None:
    x, sigma, _ = inputs()
    model = build(dropout=0.5)
    randomise(model)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(model(x, sigma, None), model(x, sigma, None))
        model.eval()
        assert torch.equal(model(x, sigma, None), model(x, sigma, None))


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
def test_channels_last_gives_the_same_and_stays_so(taps: tuple) -> None:
    x, sigma, _ = inputs()
    options = {"encoder": "residual", "decoder": "skip", "resample_filter": taps}
    model = build(attention=(4, 8), **options).eval()
    randomise(model)
    expected = model(x, sigma, None)
    model.to(memory_format=torch.channels_last)
    moved = []

    def look(module: nn.Module, _: tuple, result: object) -> None:
        images = isinstance(result, Tensor) and result.ndim == 4
        if images and not result.is_contiguous(memory_format=torch.channels_last):
            moved.append(module)

    for module in model.network.modules():
        module.register_forward_hook(look)
    found = model(x.contiguous(memory_format=torch.channels_last), sigma, None)
    assert moved == []
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_vectors_are_refused() -> None:
    with raises_code(DataError, Code.WRONG_SHAPE, '"mlp"'):
        tiny().build(DataSpec((2,)))


@pytest.mark.parametrize(
    ("size", "mult", "possible"),
    [
        (10, (1, 2, 2), "at most 2 values"),
        (7, (1, 1), "at most 1 value"),
        (12, (1,) * 4, "at most 3"),
    ],
)
def test_sizes_that_cannot_be_halved_are_refused(size: int, mult: tuple, possible: str) -> None:
    with raises_code(DataError, Code.WRONG_SHAPE, possible):
        tiny(channel_mult=mult).build(DataSpec((1, size, size)))


def test_labels_asked_of_data_without_are_refused() -> None:
    with raises_code(DataError, Code.MISSING_ATTRIBUTE, "class_conditional"):
        tiny(class_conditional=True).build(DataSpec((3, 8, 8)))


def test_a_network_without_levels_is_reported() -> None:
    (problem,) = tiny(channel_mult=()).check({})
    assert problem.key == ("channel_mult",)
    assert list(tiny().check({})) == []


@pytest.mark.parametrize("taps", [(), (1, 2, 1), (1, -1)])
def test_filters_that_keep_no_size_or_no_mean_are_reported(taps: tuple) -> None:
    (problem,) = tiny(resample_filter=taps).check({})
    assert problem.key == ("resample_filter",)
    assert "[1, 3, 3, 1]" in problem.hint


def test_hidden_classes_without_classes_are_reported() -> None:
    (problem,) = tiny(label_dropout=0.1).check({})
    assert problem.key == ("label_dropout",)
    assert list(tiny(label_dropout=0.1, class_conditional=True).check({})) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": 2},
        {"blocks": 0},
        {"dropout": 1.0},
        {"label_dropout": 1.0},
        {"channel_mult": (1, 0)},
        {"channel_mult_emb": 0},
        {"channel_mult_noise": 0},
        {"embedding": "octave"},
        {"encoder": "residue"},
        {"decoder": "residual"},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict) -> None:
    ((key, value),) = wrong.items()
    code = Code.UNKNOWN_CHOICE if isinstance(value, str) else Code.OUT_OF_RANGE
    with raises_code(SettingError, code, key):
        tiny(**wrong)
