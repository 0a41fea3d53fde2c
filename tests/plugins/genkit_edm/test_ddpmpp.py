from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from genkit.errors import DataError, SettingError
from genkit.types import DataSpec
from genkit_edm.ddpmpp import Ddpmpp
from genkit_edm.preconditioning import EdmPreconditioner

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


def reference_name(name: str) -> str:
    """The name in the reference's checkpoint of a parameter of ours (2 levels of 1 block)."""
    places = {
        "stem.conv": "enc.8x8_conv",
        "encoder.0": "enc.8x8_block0",
        "encoder.1": "enc.4x4_down",
        "encoder.2": "enc.4x4_block0",
        "middle.0": "dec.4x4_in0",
        "middle.1": "dec.4x4_in1",
        "decoder.0": "dec.4x4_block0",
        "decoder.1": "dec.4x4_block1",
        "decoder.2": "dec.8x8_up",
        "decoder.3": "dec.8x8_block0",
        "decoder.4": "dec.8x8_block1",
        "out_norm": "dec.8x8_aux_norm",
        "out.conv": "dec.8x8_aux_conv",
        "conditioning.label.linear": "map_label",
        "conditioning.first": "map_layer0",
        "conditioning.second": "map_layer1",
        ".attention.norm": ".norm2",
        ".attention.qkv": ".qkv",
        ".attention.proj": ".proj",
        "0.conv.": "0.",
        "1.conv.": "1.",
        "skip.conv": "skip",
    }
    for ours, theirs in places.items():
        name = name.replace(ours, theirs)
    return f"weights.model.{name}"


def test_denoised_is_that_of_the_reference(edm_golden) -> None:
    golden, metadata = edm_golden("denoiser_ddpmpp")
    arguments = json.loads(metadata["arguments"])
    model = build(
        DataSpec((arguments["img_channels"], 8, 8), classes=arguments["label_dim"]),
        channels=arguments["model_channels"],
        channel_mult=tuple(arguments["channel_mult"]),
        blocks=arguments["num_blocks"],
        attention=tuple(arguments["attn_resolutions"]),
        dropout=arguments["dropout"],
        class_conditional=True,
    ).eval()
    weights = {name: golden[reference_name(name)] for name, _ in model.network.named_parameters()}
    for name, weight in weights.items():
        if (
            ".qkv." in name
        ):  # the reference interleaves query, key and value; ours follow each other
            weights[name] = weight.unflatten(0, (-1, 3)).transpose(0, 1).flatten(0, 1)
    model.network.load_state_dict(weights)
    labels = golden["class_labels"].argmax(1)
    with torch.no_grad():
        denoised = model(golden["x"], golden["sigma"], labels)
    expected = golden["denoised_no_augment"]
    assert float((denoised - expected).norm() / expected.norm()) < 1e-5
    torch.testing.assert_close(denoised, expected, rtol=1e-5, atol=2e-5)


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
    with pytest.raises(DataError, match="class from 0 to 3"):
        model(x, sigma, None)


def test_attention_is_where_it_is_asked_for() -> None:
    def attending(model: nn.Module) -> int:
        return sum(name.endswith(".qkv.weight") for name, _ in model.named_parameters())

    # One block in the middle always; a level adds its encoder blocks and one of its decoder.
    assert attending(build(attention=())) == 1
    assert attending(build(attention=(4,), blocks=2)) == 1 + 3
    assert attending(build(attention=(8, 4), blocks=2)) == 1 + 6


def test_dropout_acts_in_training_only() -> None:
    x, sigma, _ = inputs()
    model = build(dropout=0.5)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for p in model.parameters():  # what starts at 1e-5 would hide the dropped elements
            nn.init.normal_(p, std=0.1)
        assert not torch.equal(model(x, sigma, None), model(x, sigma, None))
        model.eval()
        assert torch.equal(model(x, sigma, None), model(x, sigma, None))


def test_channels_last_gives_the_same() -> None:
    x, sigma, _ = inputs()
    model = build().eval()
    expected = model(x, sigma, None)
    model.to(memory_format=torch.channels_last)
    found = model(x.contiguous(memory_format=torch.channels_last), sigma, None)
    torch.testing.assert_close(found, expected)


def test_vectors_are_refused() -> None:
    with pytest.raises(DataError, match='use = "mlp"'):
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
    with pytest.raises(DataError, match=possible):
        tiny(channel_mult=mult).build(DataSpec((1, size, size)))


def test_labels_asked_of_data_without_are_refused() -> None:
    with pytest.raises(DataError, match="class_conditional = false"):
        tiny(class_conditional=True).build(DataSpec((3, 8, 8)))


def test_a_network_without_levels_is_reported() -> None:
    (problem,) = tiny(channel_mult=()).check({})
    assert problem.key == ("channel_mult",)
    assert list(tiny().check({})) == []


@pytest.mark.parametrize(
    "wrong", [{"channels": 2}, {"blocks": 0}, {"dropout": 1.0}, {"channel_mult": (1, 0)}]
)
def test_settings_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        tiny(**wrong)
