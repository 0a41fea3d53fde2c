"""Guidance of the command sample, and of denoisers in Python."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from genkit.api import load_denoiser
from genkit.artifacts import DenoiserRef, DiscriminatorFile
from genkit.errors import Code, SettingError
from genkit.interfaces import BoundGuidance, Guidance
from genkit.settings import setting
from genkit.tensors import network_digest
from genkit.types import DataSpec
from genkit_edm.solvers.heun import Heun
from raising import raises_code
from random_network import save

pytestmark = pytest.mark.slow

MLP = {"use": "mlp-discriminator", "width": 8}


GUIDE = "{{ use = \"discriminator\", discriminator = '{}', weight = {} }}"


@pytest.fixture
def judge(points, tmp_path):
    """Return the file of a discriminator that was trained on the denoiser of points."""
    path = save(tmp_path / "j.safetensors", DataSpec((2,)), "discriminator", **MLP)
    digest = network_digest(load_denoiser(points, "cpu").trained.module)
    replace(DiscriminatorFile.load(path), denoiser_digest=digest).save(path)
    return path


def test_guided_samples_are_those_of_python_and_of_a_run(genkit_, points, judge, tmp_path):
    common = ("--steps", 3, "--seeds", "0-4", "--batch-size", 2, "--device", "cpu")
    out, text = tmp_path / "out", GUIDE.format(judge, 2.0)
    assert genkit_("sample", points, *common, "--guidance", text, "--out", out)[0] == 0
    denoiser = load_denoiser(points, "cpu")
    table = {"use": "discriminator", "discriminator": judge, "weight": 2.0}
    guided = denoiser.sample(5, schedule={"steps": 3}, guidance=table, batch_size=2)
    plain = denoiser.sample(5, schedule={"steps": 3}, batch_size=2)
    for seed in range(5):
        assert np.array_equal(np.load(out / f"{seed:06d}.npy"), guided[seed].numpy())
    assert not torch.allclose(guided, plain, rtol=1e-3)
    bound = denoiser.bind_guidance([table])
    again = denoiser.sample(5, schedule={"steps": 3}, guidance=bound, batch_size=2)
    assert torch.equal(again, guided)
    idle = {**table, "weight": 0.0}
    none = denoiser.sample(5, schedule={"steps": 3}, guidance=idle, batch_size=2)
    assert torch.equal(none, plain)


def test_two_guidances_are_summed(points, judge):
    denoiser = load_denoiser(points, "cpu")
    table = {"use": "discriminator", "discriminator": str(judge)}
    double = denoiser.sample(3, schedule={"steps": 3}, guidance={**table, "weight": 2.0})
    twice = denoiser.sample(3, schedule={"steps": 3}, guidance=[table, table])
    torch.testing.assert_close(twice, double, rtol=1e-5, atol=1e-5)


def test_classifier_free_and_autoguidance_act_on_files(genkit_, tmp_path):
    spec, shared = DataSpec((2,), classes=3), {"use": "mlp", "width": 8, "blocks": 1}
    own = {"class_conditional": True, "label_dropout": 0.1}
    path = save(tmp_path / "c.safetensors", spec, **own, **shared)
    guide = save(tmp_path / "g.safetensors", spec, **{**shared, "width": 4})
    both = [
        {"use": "classifier-free", "weight": 0.5},
        {"use": "autoguidance", "guide": str(guide), "weight": 0.5},
    ]
    denoiser = load_denoiser(path, "cpu")
    steps = {"steps": 3, "sigma_max": 5.0}
    plain = denoiser.sample(4, schedule=steps)
    found = denoiser.sample(4, schedule=steps, guidance=both)
    assert not torch.allclose(found, plain, rtol=1e-3)
    texts = [
        '{ use = "classifier-free", weight = 0.5 }',
        f"{{ use = \"autoguidance\", guide = '{guide}', weight = 0.5 }}",
    ]
    schedule = ("--schedule", '{ use = "edm", steps = 3, sigma_max = 5.0 }', "--device", "cpu")
    given = [argument for text in texts for argument in ("--guidance", text)]
    common = ("sample", path, "--seeds", "0-3", *schedule, "--out", tmp_path / "out")
    assert genkit_(*common, *given)[0] == 0
    for seed in range(4):
        drawn = np.load(tmp_path / "out" / f"{seed:06d}.npy")
        assert np.allclose(drawn, found[seed].numpy(), atol=1e-6)


def test_samples_of_another_guidance_are_not_mixed(genkit_, points, judge, tmp_path):
    common = ("sample", points, "--steps", 2, "--seeds", "0-1", "--device", "cpu")
    out, text = ("--out", tmp_path / "out"), GUIDE.format(judge, 1.0)
    assert genkit_(*common, *out, "--guidance", text)[0] == 0
    assert genkit_(*common, *out, "--guidance", text)[0] == 0
    for other in ((), ("--guidance", GUIDE.format(judge, 2.0)), ("--guidance", text) * 2):
        code, _, err = genkit_(*common, *out, *other)
        assert code == 2
        assert "with a different guidance" in err
    save(judge, DataSpec((2,)), "discriminator", use="mlp-discriminator", width=16)
    code, _, err = genkit_(*common, *out, "--guidance", text)
    assert (code, "with a different guidance" in err) == (2, True)


def test_samples_of_another_file_of_a_component_are_not_mixed(
    genkit_, points, tmp_path, monkeypatch
):
    common = ("sample", points, "--steps", 2, "--device", "cpu", "--out", tmp_path / "out")
    assert genkit_(*common, "--seeds", "0")[0] == 0
    monkeypatch.setattr(Heun, "version", lambda self: "another file")
    code, _, err = genkit_(*common, "--seeds", "1")
    assert (code, "with a different file" in err) == (2, True)


def test_guidance_that_does_not_fit_is_refused_before_anything_is_drawn(
    genkit_, points, judge, tmp_path
):
    shaped = save(tmp_path / "3.safetensors", DataSpec((3,)), "discriminator", **MLP)
    told = save(
        tmp_path / "c.safetensors",
        DataSpec((2,), classes=4),
        "discriminator",
        class_conditional=True,
        **MLP,
    )
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(judge.read_bytes()[:100])
    said = [
        (
            GUIDE.format(tmp_path / "none.safetensors", 1.0),
            "none.safetensors: cannot be read as safetensors: No such file",
        ),
        (GUIDE.format("~nobody-of-this-name/d", 1.0), "guidance.discriminator: ~nobody"),
        (GUIDE.format(points, 1.0), "must be a discriminator, got a denoiser"),
        (GUIDE.format(damaged, 1.0), f"guidance.discriminator: {damaged}: cannot be read"),
        (GUIDE.format(shaped, 1.0), "must be trained on items of the denoiser's shape (2,)"),
        (GUIDE.format(told, 1.0), "classes or on none, got 4"),
        (GUIDE.format(judge, -1.0), "weight: must be at least 0"),
        (GUIDE.format(judge, 1.0).replace("weight", "wieght"), 'did you mean "weight"'),
        (
            '{ use = "discriminator" }',
            "guidance.discriminator: missing: the path of a discriminator file; write",
        ),
        ("discrimnator", 'did you mean "discriminator"'),
        ("{ use = ", "must be a name or a TOML table"),
        (
            '{ use = "discriminator", discriminator = 3 }',
            "must be the path of a discriminator file",
        ),
        (GUIDE.format(judge, 1.0).replace("weight = 1.0", "sigma_min = 30"), "below sigma_max"),
    ]
    out = tmp_path / "out"
    for text, message in said:
        code, printed, err = genkit_(
            "sample", points, "--guidance", text, "--device", "cpu", "--out", out
        )
        assert (code, printed) == (2, ""), text
        assert message in err, err
        assert "Traceback" not in err
    assert not out.exists()


@pytest.mark.parametrize("wrong", [3, [None], [[]], {"weight": 1.0}])
def test_what_is_no_guidance_is_refused(points, wrong):
    with pytest.raises(SettingError):
        load_denoiser(points, "cpu").sample(1, guidance=wrong)


class BoundBetween(BoundGuidance):
    def __init__(self, weaker, others):
        self.weaker = weaker
        self.others = others

    def correction(self, x, sigma, labels, denoised, *, inner=False):
        self.evaluations += 1 + len(self.others)
        mean = sum(other(x, sigma, labels) for other in self.others) / len(self.others)
        return self.weaker(x, sigma, labels) - mean


@dataclass(frozen=True, kw_only=True)
class Between(Guidance):
    """A third-party guidance with several references."""

    weaker: DenoiserRef = setting(doc="a denoiser")
    others: tuple[DenoiserRef, ...] = setting(doc="more denoisers")

    def bind(self, inputs, denoiser):
        modules = [inputs.network(name).module for name in (self.weaker, *self.others)]
        return BoundBetween(modules[0], modules[1:])


def test_a_third_partys_guidance_may_have_any_number_of_references(points, tmp_path):
    other = save(tmp_path / "o.safetensors", DataSpec((2,)), use="mlp", width=4)
    denoiser = load_denoiser(points, "cpu")
    same = Between(weaker=str(points), others=(str(points),))
    plain = denoiser.sample(2, schedule={"steps": 2})
    assert torch.equal(denoiser.sample(2, schedule={"steps": 2}, guidance=same), plain)
    differs = Between(weaker=str(points), others=(str(points), str(other)))
    assert not torch.equal(denoiser.sample(2, schedule={"steps": 2}, guidance=differs), plain)
    missing = Between(weaker=str(points), others=(str(tmp_path / "none.safetensors"),))
    with raises_code(SettingError, Code.NOT_FOUND, "guidance.others.0", "none.safetensors"):
        denoiser.sample(2, guidance=missing)
