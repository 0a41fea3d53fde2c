from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from genkit.artifacts import DenoiserFile
from genkit.errors import Code, DataError
from genkit.networks import load_network
from genkit.plugin.manager import load_plugins
from genkit.recipe.decode import component
from genkit.testing.networks import check_denoiser
from genkit.types import DataSpec
from genkit_edm.edm import EdmPreconditioner
from genkit_edm.edm2.denoiser import Edm2
from genkit_edm.edm2.layers import MPConv, MPLinear
from genkit_edm.edm2.network import MAX_ACTIVATION, Block
from genkit_edm.edm2.uncertainty import Uncertain
from raising import raises_code

SPEC = DataSpec((3, 8, 8), classes=4)
SMALL = Edm2(
    channels=16,
    channel_mult=(1, 2),
    blocks=1,
    attention=(4,),
    channels_per_head=16,
    preconditioner=EdmPreconditioner(),
)
SIGMA = torch.tensor([0.01, 0.3, 2.0, 60.0])


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def opened(settings=SMALL, spec=SPEC) -> Uncertain:
    """A network whose gains are no longer 0, so that everything takes part."""
    model = settings.build(spec)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gain"):
                parameter.fill_(0.7)
    return model


def magnitudes(model) -> torch.Tensor:
    layers = [m for m in model.modules() if isinstance(m, (MPConv, MPLinear))]
    return torch.cat([m.weight.flatten(1).square().mean(1).sqrt() for m in layers]).detach()


def images():
    return torch.randn(4, 3, 8, 8) * SIGMA[:, None, None, None]


def test_laws():
    for spec in (SPEC, DataSpec((1, 16, 8))):
        check_denoiser(SMALL, spec)


def test_untrained_it_returns_c_skip_x():
    model, x = SMALL.build(SPEC), images()
    c_skip = 0.25 / (SIGMA.square() + 0.25)
    for mode in (True, False):
        found = model.train(mode)(x, SIGMA)
        assert torch.allclose(found, c_skip[:, None, None, None] * x, rtol=1e-6)
    assert all(p.item() == 0 for name, p in model.named_parameters() if name.endswith("gain"))


def test_magnitudes_are_kept_from_end_to_end():
    settings = replace(SMALL, channels=64, channels_per_head=64, blocks=3)
    model = opened(settings).eval()
    seen = []
    for module in model.modules():
        if isinstance(module, Block):
            module.register_forward_hook(lambda _m, _i, out: seen.append(float(out.std())))
    with torch.no_grad():
        raw = model.network(torch.randn(16, 3, 8, 8), torch.zeros(16))
    assert len(seen) == 3 + 1 + 3 + 2 + 4 + 1 + 4
    assert min(seen) > 0.6
    assert max(seen) < 1.6
    assert 0.35 < float(raw.std()) < 1.1  # the gain is 0.7


def test_parameters_of_the_paper():
    # EDM2-S: 280 million parameters, for latents of 64x64 and 1000 classes.
    settings = Edm2(
        channels=192,
        channel_mult=(1, 2, 3, 4),
        class_conditional=True,
        preconditioner=EdmPreconditioner(),
    )
    with torch.device("meta"):
        model = settings.build(DataSpec((4, 64, 64), classes=1000))
    assert sum(p.numel() for p in model.parameters()) == 280_212_837


def test_weights_keep_their_norm_through_training():
    model = opened().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(5):
        model(images(), SIGMA).square().mean().backward()
        model.uncertainty(SIGMA).sum().backward()
        optimizer.step()
        assert (magnitudes(model) - 1).abs().max() > 1e-3
        model(images(), SIGMA)
        model.uncertainty(SIGMA)
        assert (magnitudes(model) - 1).abs().max() < 1e-3


def test_evaluation_leaves_the_weights_alone():
    model = opened().eval()
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    model(images(), SIGMA).sum().backward()
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_autocast_keeps_weights_and_uncertainty_in_float32(layout):
    model = opened().train().to(memory_format=layout)
    x = images().to(memory_format=layout)
    wide = model(x, SIGMA)
    u = model.uncertainty(SIGMA)
    embedded = model.network.embedding(SIGMA, None)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.network.embedding(SIGMA, None), embedded)
        low = model(x, SIGMA)
        assert torch.allclose(model.uncertainty(SIGMA), u, rtol=1e-5)
    assert low.dtype == torch.float32
    assert 0 < (low - wide).norm() / wide.norm() < 0.03
    assert (magnitudes(model) - 1).abs().max() < 1e-3
    low.square().mean().backward()
    assert all(p.grad.dtype == p.dtype == torch.float32 for p in model.network.parameters())


def test_compiled_it_trains_alike():
    settings, x = replace(SMALL, channel_mult=(1,), attention=(8,)), images()
    eager, compiled = (opened(settings).train() for _ in range(2))
    compiled.load_state_dict(eager.state_dict())
    compiled.compile(backend="aot_eager", fullgraph=True)
    for model in (eager, compiled):
        model(x, SIGMA).square().mean().backward()
    assert (magnitudes(compiled.network) - 1).abs().max() < 1e-3
    theirs = dict(eager.named_parameters())
    for name, parameter in compiled.named_parameters():
        if name.startswith("network."):
            assert torch.allclose(parameter, theirs[name], atol=1e-6)
            assert torch.allclose(parameter.grad, theirs[name].grad, rtol=1e-3, atol=1e-6)


def test_classes():
    told = replace(SMALL, class_conditional=True)
    model, x = opened(told).eval(), images()
    ones, twos = torch.tensor([1] * 4), torch.tensor([2] * 4)
    assert not torch.allclose(model(x, SIGMA, ones), model(x, SIGMA, twos))
    as_weights = torch.nn.functional.one_hot(ones, 4).float()
    assert torch.allclose(model(x, SIGMA, ones), model(x, SIGMA, as_weights))
    with raises_code(DataError, Code.MISSING_ATTRIBUTE):
        model(x, SIGMA)
    unconditional = opened().eval()
    assert torch.equal(unconditional(x, SIGMA, ones), unconditional(x, SIGMA))


def test_label_dropout_hides_classes_in_training():
    model = opened(replace(SMALL, class_conditional=True, label_dropout=0.5))
    x, labels = images()[:1].expand(64, 3, 8, 8), torch.zeros(64, dtype=torch.int64)
    sigma = torch.ones(64)
    with torch.no_grad():
        told, hidden = (model.eval()(x, sigma, given)[0] for given in (labels, None))
        found = model.train()(x, sigma, labels)
    hides = [torch.allclose(image, hidden, atol=1e-4) for image in found]
    tells = [torch.allclose(image, told, atol=1e-4) for image in found]
    assert 16 < sum(hides) < 48
    assert sum(hides) + sum(tells) == 64


def test_dropout_acts_in_training_only():
    model, x = opened(replace(SMALL, dropout=0.5)), images()
    assert not torch.equal(model.train()(x, SIGMA), model.train()(x, SIGMA))
    assert torch.equal(model.eval()(x, SIGMA), model.eval()(x, SIGMA))


def test_activations_are_clipped():
    block = Block(4, 4, "decoder", embedding=8, dropout=0.0).eval()
    found = block(torch.full((1, 4, 2, 2), 1e6), torch.zeros(1, 8))
    assert float(found.detach().abs().max()) == MAX_ACTIVATION


def test_saved_and_read_again_with_its_uncertainty(tmp_path):
    registry = load_plugins().registry
    table = {
        "use": "edm2",
        "channels": 16,
        "channel_mult": [1, 2],
        "blocks": 1,
        "attention": [4],
        "channels_per_head": 16,
    }
    settings = component(registry, "denoiser", table)
    assert settings == SMALL
    assert not settings.takes_augment_labels
    model = opened(settings).eval()
    DenoiserFile(table, SPEC, model.state_dict()).save(tmp_path / "net.safetensors")
    again = load_network(tmp_path / "net.safetensors", registry).module
    assert torch.equal(again.uncertainty(SIGMA), model.uncertainty(SIGMA))
    x = images()
    assert torch.equal(again(x, SIGMA), model(x, SIGMA))


@pytest.mark.parametrize(
    ("changes", "spec", "message"),
    [
        ({}, DataSpec((2,)), (Code.WRONG_SHAPE, '"mlp"')),
        ({"channel_mult": (1, 2, 2)}, DataSpec((3, 6, 6)), (Code.WRONG_SHAPE, "2 values")),
        ({"channels_per_head": 12}, SPEC, (Code.CONFLICT, "32 channels", "channels_per_head = 32")),
        (
            {"channels_per_head": 32, "attention": (8,)},
            SPEC,
            (Code.CONFLICT, "16 channels", "channels_per_head = 16"),
        ),
        (
            {"class_conditional": True},
            DataSpec((3, 8, 8)),
            (Code.MISSING_ATTRIBUTE, "class_conditional"),
        ),
    ],
)
def test_data_that_does_not_fit(changes, spec, message):
    with raises_code(DataError, *message):
        replace(SMALL, **changes).build(spec)


def test_settings_that_contradict_each_other():
    (problem,) = replace(SMALL, channel_mult=()).check({})
    assert problem.key == ("channel_mult",)
    (problem,) = replace(SMALL, label_dropout=0.1).check({})
    assert problem.key == ("label_dropout",)
    assert list(replace(SMALL, label_dropout=0.1, class_conditional=True).check({})) == []
