from __future__ import annotations

import json

import pytest
import torch

from genkit.errors import Code, DataError
from genkit_edm.edm import EdmPreconditioner
from genkit_edm.edm2.denoiser import Edm2
from genkit_edm.iddpm import IddpmPreconditioner, iddpm_levels
from genkit_edm.reference.networks import (
    denoiser_from_reference,
    from_reference,
    network_from_reference,
)
from genkit_edm.unet.denoisers import Adm, Ddpmpp, Ncsnpp
from genkit_edm.ve import VePreconditioner
from genkit_edm.vp import VpPreconditioner
from raising import raises_code

NAMES = ["adm", "ddpmpp", "iddpm_adm", "ncsnpp", "ve_ncsnpp", "vp_ddpmpp"]


@pytest.fixture
def stored(edm_golden):
    """Weights, preconditioning, arguments and the rest of a golden file, by its name."""

    def read(name: str):
        tensors, metadata = edm_golden(f"denoiser_{name}")
        weights = {k.removeprefix("weights."): v for k, v in tensors.items() if "weights." in k}
        return weights, metadata["precond"], json.loads(metadata["arguments"]), tensors

    return read


def worst_error(found, expected) -> float:
    """Return the greatest relative error of an image, by its norm."""
    pairs = zip(found, expected, strict=True)
    return max(float((item - other).norm() / other.norm()) for item, other in pairs)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", NAMES)
def test_denoised_is_that_of_the_reference(stored, name: str, layout) -> None:
    weights, precond, arguments, tensors = stored(name)
    state = torch.get_rng_state()
    denoiser = denoiser_from_reference(weights, precond, arguments).to(memory_format=layout)
    assert torch.equal(torch.get_rng_state(), state)
    assert not denoiser.training
    x, labels = tensors["x"].to(memory_format=layout), tensors.get("class_labels")
    expected = {"denoised": tensors.get("augment_labels"), "denoised_no_augment": None}
    compared = 0
    for key in expected.keys() & tensors.keys():
        with torch.no_grad():
            found = denoiser(x, tensors["sigma"], labels, expected[key])
        assert worst_error(found, tensors[key]) < 1e-5
        assert worst_error(found, tensors[key] * (1 + 3e-5)) > 1e-5  # a slightly damaged copy
        compared += 1
    assert compared == (2 if "augment_dim" in arguments else 1)


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_is_ours_to_the_bit(stored, name: str) -> None:
    weights, precond, arguments, _ = stored(name)
    ours = from_reference(weights, precond, arguments)[2]
    settings, spec = network_from_reference(precond, arguments)
    state = settings.build(spec).state_dict()
    assert {n: v.shape for n, v in ours.items()} == {n: v.shape for n, v in state.items()}
    fixed = [n for n in weights if n.endswith("resample_filter") or n == "u"]
    assert len(ours) + len(fixed) == len(weights)
    bits = torch.cat([v.flatten() for v in ours.values()]).sort().values
    theirs = []
    for n, v in weights.items():
        if n not in fixed:
            half = precond == "iDDPMPrecond" and n.startswith("model.out_conv")
            theirs.append((v[:3] if half else v).flatten())  # the variance is not learned
    assert torch.equal(bits, torch.cat(theirs).sort().values)


def test_the_default_arguments_are_those_of_the_reference() -> None:
    sizes = {"img_resolution": 32, "img_channels": 3}
    settings, spec = network_from_reference("EDMPrecond", sizes)
    assert isinstance(settings, Adm)
    assert (settings.channels, settings.blocks, settings.channel_mult) == (192, 3, (1, 2, 3, 4))
    assert (settings.attention, settings.dropout) == ((32, 16, 8), 0.1)
    assert settings.preconditioner.sigma_data == 0.5
    assert spec.shape == (3, 32, 32)
    assert not settings.class_conditional

    settings, _ = network_from_reference("VPPrecond", sizes)
    assert type(settings) is Ddpmpp
    assert (settings.channels, settings.blocks, settings.channel_mult) == (128, 4, (1, 2, 2, 2))
    assert (settings.attention, settings.dropout, settings.encoder) == ((16,), 0.1, "standard")
    assert settings.preconditioner == VpPreconditioner(
        beta_d=19.9, beta_min=0.1, m=1000, eps_t=1e-5
    )

    settings, _ = network_from_reference("VEPrecond", {**sizes, "embedding_type": "fourier"})
    assert type(settings) is Ncsnpp
    assert (settings.encoder, settings.resample_filter) == ("standard", (1, 1))
    assert settings.preconditioner == VePreconditioner(sigma_min=0.02, sigma_max=100.0)

    settings, _ = network_from_reference("iDDPMPrecond", {**sizes, "M": 500, "use_fp16": True})
    assert settings.preconditioner == IddpmPreconditioner(c_1=0.001, c_2=0.008, m=500)

    settings, spec = network_from_reference("Precond", {**sizes, "label_dim": 10, "use_fp16": True})
    assert settings == Edm2(
        channels=192,
        channel_mult=(1, 2, 3, 4),
        blocks=3,
        attention=(16, 8),
        channels_per_head=64,
        dropout=0.0,
        class_conditional=True,
        preconditioner=EdmPreconditioner(sigma_data=0.5),
    )
    assert (spec.shape, spec.classes) == ((3, 32, 32), 10)


@pytest.mark.parametrize(
    "arguments",
    [
        {"channel_mult_noise": None, "channel_mult_emb": None},
        {"channel_mult_noise": 1, "channel_mult_emb": 4},
        {"label_balance": 0.5, "concat_balance": 0.5, "res_balance": 0.3, "attn_balance": 0.3},
        {"clip_act": 256, "resample_filter": [1, 1], "logvar_channels": 128},
    ],
)
def test_edm2_arguments_that_our_network_has(arguments: dict) -> None:
    sizes = {"img_resolution": 32, "img_channels": 3, "label_dim": 0}
    plain = network_from_reference("Precond", sizes)
    assert network_from_reference("Precond", {**sizes, **arguments}) == plain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label_balance": 0.3}, (Code.CONFLICT, "label_balance", 0.5, 0.3)),
        ({"concat_balance": 0.4}, (Code.CONFLICT, "concat_balance", 0.5, 0.4)),
        ({"res_balance": 0.5}, (Code.CONFLICT, "res_balance", 0.3, 0.5)),
        ({"attn_balance": 0.5}, (Code.CONFLICT, "attn_balance", 0.3, 0.5)),
        ({"clip_act": None}, (Code.CONFLICT, "clip_act", "256.0", None)),
        (
            {"resample_filter": [1, 3, 3, 1]},
            (Code.CONFLICT, "resample_filter", [1, 1], [1, 3, 3, 1]),
        ),
        ({"logvar_channels": 64}, (Code.CONFLICT, "logvar_channels", 128, 64)),
        ({"channel_mult_noise": 2}, (Code.CONFLICT, "channel_mult_noise", 1, 2)),
        ({"channel_mult_emb": 3}, (Code.CONFLICT, "channel_mult_emb", 4, 3)),
        ({"model_type": "SongUNet"}, (Code.UNKNOWN_CHOICE, "'SongUNet'", "UNet")),
        ({"model_type": "UNet"}, (Code.UNKNOWN_KEY, "Precond", "UNet", "model_type")),
        ({"augment_dim": 9}, (Code.UNKNOWN_KEY, "augment_dim")),
        ({"label_dropout": 0.1}, (Code.UNKNOWN_KEY, "label_dropout")),
        ({"label_balence": 0.5}, (Code.UNKNOWN_KEY, "label_balence", '"label_balance"')),
        ({"channel_mult": []}, (Code.CONFLICT, "channel_mult")),
        ({"channels_per_head": 100}, (Code.CONFLICT, "channels_per_head")),
    ],
)
def test_edm2_arguments_that_our_network_cannot_have(arguments: dict, message: str) -> None:
    sizes = {"img_resolution": 32, "img_channels": 3, "label_dim": 0}
    with raises_code(DataError, *message):
        from_reference({str(k): torch.ones(1) for k in range(99)}, "Precond", sizes | arguments)[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma_dta": 0.5}, (Code.UNKNOWN_KEY, "sigma_dta", '"sigma_data"')),
        ({"beta_d": 19.9}, (Code.UNKNOWN_KEY, "EDMPrecond", "SongUNet", "beta_d")),
        ({"sigma_min": 0.002}, (Code.CONFLICT, "sigma_min", 0, 0.002)),
        ({"sigma_max": 80.0}, (Code.CONFLICT, "sigma_max", "inf", "80.0")),
        (
            {"model_type": "EDM2UNet"},
            (Code.UNKNOWN_CHOICE, "'EDM2UNet'", "DhariwalUNet", "SongUNet"),
        ),
        ({"model_type": ["SongUNet"]}, (Code.UNKNOWN_CHOICE, ["SongUNet"])),
        ({"model_type": "UNet"}, (Code.UNKNOWN_CHOICE, "'UNet'")),
        ({"model_channels": 0}, (Code.OUT_OF_RANGE, "channels", 0)),
        ({"num_blocks": "4"}, (Code.WRONG_TYPE, "blocks")),
        ({"resample_filter": [1, 2, 1]}, (Code.CONFLICT, "resample_filter")),
        ({"label_dim": -1}, (Code.OUT_OF_RANGE, "label_dim", -1)),
        ({"img_resolution": None}, (Code.OUT_OF_RANGE, "img_resolution", None)),
        ({"num_blocks": 10**9}, (Code.OUT_OF_RANGE, 10**9)),
    ],
)
def test_arguments_that_make_no_network_are_refused(stored, change: dict, message: str) -> None:
    weights, precond, arguments, _ = stored("ddpmpp")
    changed = {"channel_mult": [1]} if "num_blocks" in change else {}
    with raises_code(DataError, *message):
        from_reference(weights, precond, {**arguments, **changed, **change})[2]


def test_an_unknown_preconditioning_is_refused() -> None:
    with raises_code(DataError, Code.UNKNOWN_CHOICE, "'EDM2Precond'"):
        network_from_reference("EDM2Precond", {})


def broken(weights: dict, how: str) -> dict:
    weights = dict(weights)
    name = "model.dec.4x4_in0.qkv.weight"
    match how:
        case "missing":
            del weights[name]
        case "unexpected":
            weights["model.enc.8x8_block1.conv0.weight"] = torch.ones(1)
        case "shape":
            weights[name] = weights[name][:-1]
        case "integers":
            weights[name] = weights[name].int()
        case "nan":
            weights[name] = weights[name].clone().index_fill_(0, torch.tensor([3]), torch.nan)
        case "filter":
            weights["model.dec.8x8_up.conv0.resample_filter"] = torch.full((1, 1, 2, 2), 0.3)
        case "no filter":
            del weights["model.enc.4x4_down.skip.resample_filter"]
    return weights


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", (Code.NOT_FOUND, "model.dec.4x4_in0.qkv.weight")),
        ("unexpected", (Code.CONFLICT, "model.enc.8x8_block1.conv0.weight")),
        (
            "shape",
            (Code.WRONG_SHAPE, "model.dec.4x4_in0.qkv.weight", [95, 32, 1, 1], [96, 32, 1, 1]),
        ),
        ("integers", (Code.WRONG_TYPE, "torch.int32")),
        ("nan", (Code.NOT_FINITE, "model.dec.4x4_in0.qkv.weight")),
        ("filter", (Code.CONFLICT, "model.dec.8x8_up.conv0.resample_filter")),
        ("no filter", (Code.NOT_FOUND, "model.enc.4x4_down.skip.resample_filter")),
    ],
)
def test_the_first_difference_is_named(stored, how: str, message: str) -> None:
    weights, precond, arguments, _ = stored("ddpmpp")
    with raises_code(DataError, *message):
        denoiser_from_reference(broken(weights, how), precond, arguments)


def test_a_table_of_noise_levels_that_does_not_fit_is_refused(stored) -> None:
    weights, precond, arguments, _ = stored("iddpm_adm")
    with raises_code(DataError, Code.CONFLICT, "u"):
        from_reference(weights, precond, {**arguments, "C_2": 0.1})[2]
    with raises_code(DataError, Code.WRONG_SHAPE, "u", "[1001]"):
        from_reference(weights, precond, {**arguments, "M": 100})[2]


def test_an_iddpm_network_has_the_table_of_its_file(stored) -> None:
    weights, precond, arguments, _ = stored("iddpm_adm")
    table = weights["u"][:-1].flip(0)  # float32, and the level 0 left out
    preconditioner = denoiser_from_reference(weights, precond, arguments).preconditioner
    assert torch.equal(preconditioner.round_sigma(table), table)
    ends = torch.tensor([0.0, torch.inf], dtype=torch.float64)
    assert preconditioner.round_sigma(ends).tolist() == [float(table[0]), float(table[-1])]
    # The formula's levels differ: all of them in float64, and most in float32 too.
    plain = network_from_reference(precond, arguments)[0].preconditioner
    assert (plain.round_sigma(table) == table).float().mean() < 0.5
    levels = torch.logspace(-2, 4, 2001, dtype=torch.float64)
    exact = table.double()
    nearest = exact[(levels[:, None] - exact).abs().argmin(1)]
    assert torch.equal(preconditioner.round_sigma(levels), nearest)


def test_a_table_that_does_not_increase_is_refused(stored) -> None:
    weights, precond, arguments, _ = stored("iddpm_adm")
    # Neighbours of a table this fine are as close as the check against the formula allows.
    levels = iddpm_levels(m=20_000)
    u = torch.cat([levels.flip(0), torch.zeros(1)]).float()
    fine = {**arguments, "M": 20_000}
    from_reference({**weights, "u": u}, precond, fine)[2]
    u[10_000] = u[10_001]
    with raises_code(DataError, Code.CONFLICT, "table"):
        from_reference({**weights, "u": u}, precond, fine)[2]


def test_double_precision_and_other_layouts_are_taken(stored) -> None:
    weights, precond, arguments, _ = stored("ddpmpp")
    double = {name: value.double() for name, value in weights.items()}
    ours = from_reference(double, precond, arguments)[2]
    for name, value in from_reference(weights, precond, arguments)[2].items():
        assert torch.equal(ours[name], value)
