"""Networks in files, and networks built from them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from genkit import files, tensors
from genkit.artifacts import DenoiserFile, DiscriminatorFile, NetworkFile
from genkit.artifacts.coupling import Coupling
from genkit.errors import Code, DataError
from genkit.interfaces import Denoiser, Preconditioner
from genkit.networks import load_network, require_fit
from genkit.parts.meta import without_memory
from genkit.plugin.registry import Owner, Registration, Registry
from genkit.types import Coefficients, DataSpec
from raising import raises_code


@dataclass(frozen=True, kw_only=True)
class Plain(Preconditioner):
    """No preconditioning."""

    def coefficients(self, sigma):
        one = torch.ones_like(sigma)
        return Coefficients(0 * one, one, one, sigma)

    def weight(self, sigma):
        return torch.ones_like(sigma)


class Halves(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x, c_noise, labels):
        return self.layer(x)


@dataclass(frozen=True, kw_only=True)
class Linear(Denoiser):
    """One linear layer."""

    def build_network(self, spec):
        return Halves(*spec.shape)


@pytest.fixture
def registry() -> Registry:
    registration = Registration(Owner("test", "test", "1"))
    registration.add("denoiser", "linear", f"{__name__}:Linear")
    registration.add("preconditioner", "plain", f"{__name__}:Plain")
    found = Registry()
    found.accept(registration)
    return found


TABLE = {"use": "linear", "preconditioner": {"use": "plain"}, "class_conditional": True}
SPEC = DataSpec((4,), classes=3)
COUPLING = Coupling(True, True, ("labels",), independent=False, preserves_score=False)


def file_of(model, **changed):
    parts = {"table": TABLE, "spec": SPEC, "images": 100, "coupling": COUPLING, **changed}
    return DenoiserFile(weights=model.state_dict(), **parts)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["network.layer.weight", "network.layer.bias"])
def test_weights_that_are_not_finite_are_refused(tmp_path, registry, name, value):
    model = Linear(preconditioner=Plain()).build(SPEC)
    model.state_dict()[name].view(-1)[-1] = value
    file_of(model).save(tmp_path / "n.safetensors")
    with raises_code(DataError, Code.NOT_FINITE, name, value, "n.safetensors"):
        load_network(tmp_path / "n.safetensors", registry)


def test_a_buffer_may_be_infinite_and_is_a_number(tmp_path, registry, monkeypatch):
    def build_network(self, spec):
        module = Halves(*spec.shape)
        module.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
        return module

    monkeypatch.setattr(Linear, "build_network", build_network)
    model = Linear(preconditioner=Plain()).build(SPEC)
    file_of(model).save(tmp_path / "n.safetensors")
    load_network(tmp_path / "n.safetensors", registry)
    model.network.mask[0] = torch.nan
    file_of(model).save(tmp_path / "n.safetensors")
    with raises_code(DataError, Code.NOT_FINITE, "network.mask", "nan"):
        load_network(tmp_path / "n.safetensors", registry)


def test_a_network_is_built_again_from_its_file_alone(tmp_path, registry):
    model = Linear(preconditioner=Plain()).build(SPEC)
    file_of(model).save(tmp_path / "n.safetensors")
    loaded = load_network(tmp_path / "n.safetensors", registry)
    x, sigma = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)), torch.ones(2)
    assert torch.equal(loaded.module(x, sigma), model(x, sigma))
    assert loaded.spec == SPEC
    assert loaded.classes == 3
    assert loaded.coupling == COUPLING
    assert not loaded.module.training
    assert not any(p.requires_grad for p in loaded.module.parameters())


def test_a_file_with_the_earlier_name_of_realness_is_read(tmp_path):
    model = Linear(preconditioner=Plain()).build(SPEC)
    file = file_of(model)
    spec = json.dumps({"shape": [4], "classes": 3, "sources": True})
    coupling = json.dumps({**COUPLING.table(), "preserves_conditional_prior": ["sources"]})
    metadata = {**file.metadata(), "spec": spec, "coupling": coupling}
    tensors.save(tmp_path / "n.safetensors", file.weights, metadata)
    loaded = NetworkFile.load(tmp_path / "n.safetensors")
    assert loaded.spec.realness
    assert loaded.coupling.preserves_conditional_prior == ("realness",)


def test_equal_networks_give_equal_bytes(tmp_path):
    model = Linear(preconditioner=Plain()).build(SPEC)
    for name in ("a", "b"):
        table = TABLE if name == "a" else dict(reversed(TABLE.items()))
        file_of(model, table=table).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_weights_that_do_not_fit_are_refused(tmp_path, registry):
    model = Linear(preconditioner=Plain()).build(DataSpec((5,)))
    file_of(model).save(tmp_path / "n.safetensors")
    with raises_code(DataError, Code.CONFLICT):
        load_network(tmp_path / "n.safetensors", registry)


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({}, ("weight",)),
        (
            {"weight": torch.ones(3, 2), "bias": torch.ones(3)},
            ("weight", "float32 of shape [3, 2]", "float32 of shape [2, 3]"),
        ),
        ({"weight": torch.ones(2, 3).double()}, ("weight", "float64")),
        (
            {"weight": torch.ones(2, 3), "bias": torch.ones(2), "more": torch.ones(1)},
            ("more",),
        ),
    ],
)
def test_the_first_difference_is_named(weights, reason):
    with raises_code(DataError, Code.CONFLICT, *reason):
        require_fit(nn.Linear(3, 2), weights)


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\xff" * 100])
def test_a_damaged_file_is_refused(tmp_path, registry, content):
    (tmp_path / "n.safetensors").write_bytes(content)
    with raises_code(DataError, Code.UNREADABLE, "n.safetensors"):
        load_network(tmp_path / "n.safetensors", registry)


def test_a_file_of_another_kind_is_refused(tmp_path, registry):
    tensors.save(tmp_path / "n.safetensors", {"x": torch.ones(1)}, {})
    with raises_code(DataError, Code.DATA, "images, kind, network, spec"):
        load_network(tmp_path / "n.safetensors", registry)


def test_a_network_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "n.safetensors"
    file_of(Linear(preconditioner=Plain()).build(SPEC)).save(path)
    with raises_code(DataError, Code.WRONG_KIND, "discriminator", "denoiser"):
        DiscriminatorFile.load(path)
    assert type(NetworkFile.load(path)) is type(NetworkFile.outline(path)) is DenoiserFile
    assert NetworkFile.outline(path).weights == {}


@pytest.mark.parametrize(
    ("key", "value"),
    [("spec", "{}"), ("spec", "3"), ("network", "[1]"), ("images", '"x"'), ("coupling", "[]")],
)
def test_a_damaged_description_is_refused(tmp_path, key, value):
    path = tmp_path / "n.safetensors"
    file = file_of(Linear(preconditioner=Plain()).build(SPEC))
    tensors.save(path, file.weights, {**file.metadata(), key: value})
    with raises_code(DataError, Code.UNREADABLE):
        DenoiserFile.load(path)


def test_a_kill_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    tensors.save(path, {"x": torch.ones(1)}, {})
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        files.write_bytes(path, b"half of a")
    assert torch.equal(tensors.load(path)[0]["x"], torch.ones(1))


def test_without_memory_only_shapes_are_built():
    generator = torch.Generator()
    state = generator.get_state()
    with without_memory():
        drawn = [
            torch.randn(3, 2, generator=generator),
            torch.rand(3, 2),
            torch.randn_like(torch.empty(3, 2)),
            torch.zeros(3, 2).normal_(),
            nn.init.normal_(torch.empty(3, 2)),
        ]
        double = torch.randn(3, dtype=torch.float64)
    assert {(tensor.device.type, tensor.shape) for tensor in drawn} == {("meta", (3, 2))}
    assert double.dtype == torch.float64
    assert torch.equal(generator.get_state(), state)


def test_without_memory_draws_on_another_device_are_made():
    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return [
            torch.randn(4, device="cpu", generator=generator),
            torch.rand(4, device="cpu", generator=generator),
            torch.zeros(4, device="cpu").normal_(generator=generator),
            nn.init.normal_(torch.zeros(4, device="cpu"), generator=generator),
        ]

    expected = draw(0)
    with without_memory():
        found = draw(0)
        like = torch.randn_like(expected[0])
    assert all(map(torch.equal, found, expected))
    assert like.device.type == "cpu"
    assert like.abs().sum() > 0


IMPORTS = """
import sys, torch
from torch import nn
from genkit.parts.meta import without_memory

with without_memory():
    like = torch.empty(3, 3)
    torch.randn(3), torch.rand(3), torch.randn_like(like), torch.rand_like(like)
    like.normal_(), like.uniform_(), nn.init.normal_(like), nn.init.trunc_normal_(like)
    nn.Linear(3, 3), nn.Embedding(3, 4), nn.Conv2d(3, 3, 3)
print(*{"torch._dynamo", "sympy"} & set(sys.modules))
"""


def test_without_memory_neither_torchs_compiler_nor_sympy_is_imported():
    command = [sys.executable, "-c", IMPORTS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.split() == []
