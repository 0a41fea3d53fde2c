from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from genkit.errors import Code, DataError, UsageError
from genkit.interfaces import DatasetCoupler, Stage
from genkit.random import generator
from genkit.tensors import save
from genkit.testing import check_coupler
from genkit.types import Batch
from genkit_semidiscrete import stage
from genkit_semidiscrete.coupler import BoundSemidiscrete, Semidiscrete
from genkit_semidiscrete.potential import Potential


def images() -> Batch:
    data = torch.randn(8, 1, 2, 3, generator=generator(0, "images"))
    return Batch(data, torch.tensor([0, 1, 1, 0, 1, 0, 0, 1]))


def noise(count: int = 20) -> Tensor:
    return torch.randn(count, 1, 2, 3, generator=generator(0, "noise"))


def pair(coupler: BoundSemidiscrete, batch: Batch, among: Tensor | None = None) -> Tensor:
    among = noise() if among is None else among
    return coupler.choose(batch, among, generator(0, "pairs"))


@pytest.mark.parametrize("by", [(), ("label",)])
def test_laws(fit: Any, by: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "MIN_STEPS", 10)  # because hundreds of small data sets are fitted
    monkeypatch.setattr(stage, "REPORTS", 1)
    coupler = Semidiscrete(potential="potential", by=by)
    few = {"by": by, "batch_size": 16, "noises_per_image": 1}
    check_coupler(coupler, fit=lambda batch: fit(batch, **few))


def test_it_declares_what_it_keeps() -> None:
    blind, by_class = (Semidiscrete(potential="p", by=by) for by in ((), ("label",)))
    assert isinstance(blind, DatasetCoupler)
    assert blind.preserves_noise_marginal
    assert blind.preserves_conditional_prior == blind.requires == frozenset()
    assert by_class.preserves_conditional_prior == by_class.requires == {"labels"}


def test_images_of_every_device_and_type_are_known_again(fit: Any) -> None:
    batch = images()
    coupler = fit(batch)
    expected = pair(coupler, batch)
    assert torch.equal(pair(coupler, batch.with_data(batch.data.double())), expected)
    rounded = batch.with_data(batch.data * (1 + 1e-6))  # as if computed on another device
    assert torch.equal(pair(coupler, rounded), expected)


def test_without_its_potential_it_says_what_to_call() -> None:
    with pytest.raises(UsageError) as caught:
        Semidiscrete(potential="p").choose(images(), noise(), generator(0))
    assert caught.value.code == Code.USAGE
    assert "bind" in str(caught.value)


def test_another_data_set_is_refused(fit: Any) -> None:
    batch = images()
    coupler = fit(batch, by=("label",))
    with pytest.raises(DataError) as caught:
        pair(coupler, batch[:7])
    assert caught.value.code == Code.WRONG_SHAPE
    assert "8 images" in str(caught.value)
    assert "7" in str(caught.value)
    with pytest.raises(DataError) as caught:
        pair(coupler, batch.with_data(batch.data.transpose(2, 3)))
    assert caught.value.code == Code.WRONG_SHAPE
    assert "(1, 3, 2)" in str(caught.value)
    for changed in (batch.data.flip(3), batch.data[[0, 1, 2, 4, 3, 5, 6, 7]]):
        with pytest.raises(DataError) as caught:
            pair(coupler, batch.with_data(changed))
        assert caught.value.code == Code.CONFLICT
        assert "image" in str(caught.value)
    one = batch.data.clone()
    one[5, 0, 1, 1] += 0.1
    with pytest.raises(DataError) as caught:
        pair(coupler, batch.with_data(one))
    assert caught.value.code == Code.CONFLICT
    assert "image 5" in str(caught.value)
    other = torch.tensor([0, 1, 1, 0, 1, 0, 1, 1])
    with pytest.raises(DataError) as caught:
        pair(coupler, replace(batch, labels=other))
    assert caught.value.code == Code.CONFLICT
    assert "label of image 6" in str(caught.value)


def test_values_that_are_not_finite_are_named(fit: Any) -> None:
    batch = images()
    coupler = fit(batch)
    bad, wanted = batch.data.clone(), noise()
    bad[3, 0, 0, 0] = wanted[2, 0, 1, 1] = torch.nan
    with pytest.raises(DataError) as caught:
        pair(coupler, batch.with_data(bad))
    assert caught.value.code == Code.NOT_FINITE
    assert "image 3 of" in str(caught.value)
    with pytest.raises(DataError) as caught:
        pair(coupler, batch, wanted)
    assert caught.value.code == Code.NOT_FINITE
    assert "noise 2 of" in str(caught.value)
    with pytest.raises(DataError) as caught:
        pair(coupler, batch, noise().transpose(2, 3))
    assert caught.value.code == Code.WRONG_SHAPE
    assert "noise" in str(caught.value)


def test_the_file_is_looked_at(fit: Any) -> None:
    place = fit.place()
    coupler = Semidiscrete(potential="potential")
    path = place.folder / "potential.safetensors"
    with pytest.raises(DataError) as caught:
        coupler.bind(place)
    assert caught.value.code == Code.NOT_FOUND
    assert "potential.safetensors" in str(caught.value)
    fit.stage(images(), by=("label",)).run(place)
    with pytest.raises(DataError) as caught:
        coupler.bind(place)
    assert caught.value.code == Code.CONFLICT
    assert '["label"]' in str(caught.value)
    save(path, {"weights": torch.zeros(2)}, {})
    with pytest.raises(DataError) as caught:
        coupler.bind(place)
    assert caught.value.code == Code.WRONG_KIND
    assert "potential.safetensors" in str(caught.value)


def test_another_stage_may_write_the_potential(fit: Any) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Other(Stage):
        output = Potential

        def run(self, context: object) -> None: ...

    coupler = Semidiscrete(potential="p")
    assert list(coupler.check({"p": Other()})) == []
    assert list(coupler.check({})) == []  # reported where references are resolved
    assert list(coupler.check({"p": fit.stage(images())})) == []


def test_a_class_that_no_noise_is_dealt_is_left_out(fit: Any) -> None:
    batch = images()
    coupler = fit(batch, by=("label",))
    assert len(pair(coupler, batch, noise(1))) == 1
