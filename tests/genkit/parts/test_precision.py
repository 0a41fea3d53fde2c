"""In which arithmetic a network computes, and that nothing of it stays behind."""

from __future__ import annotations

import pytest
import torch

from genkit.errors import Code, DataError
from genkit.parts.precision import (
    autocast,
    multiplying_in,
    network_precision,
    require_precision,
)

CONVOLUTIONS, PRODUCTS = torch.backends.cudnn.conv, torch.backends.cuda.matmul


def switches():
    return [CONVOLUTIONS.fp32_precision, PRODUCTS.fp32_precision]


@pytest.mark.parametrize(
    ("precision", "inside"),
    [("float32", "ieee"), ("tf32", "tf32"), ("bfloat16", "ieee"), ("float16", "ieee")],
)
def test_tf32_is_allowed_inside_alone_and_for_convolutions_alone(precision, inside):
    before = switches()
    with multiplying_in(precision):
        assert switches() == [inside, "ieee"]
        # What older compilers of PyTorch ask, and were refused where the old switch and the new
        # one disagree.
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cuda.matmul.allow_tf32
    assert switches() == before


def test_tf32_is_taken_back_after_an_error():
    before = switches()
    with pytest.raises(ValueError, match="broken"), multiplying_in("tf32"):
        raise ValueError("broken")
    assert switches() == before


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("float32", torch.float32),
        ("tf32", torch.float32),
        ("bfloat16", torch.bfloat16),
        ("float16", torch.float16),
    ],
)
def test_products_have_the_type_that_was_asked(precision, dtype):
    x = torch.ones(2, 2)
    with autocast(precision, torch.device("cpu")):
        assert (x @ x).dtype == dtype


@pytest.mark.parametrize(
    ("precision", "dtype", "inside"),
    [
        ("float32", torch.float32, "ieee"),
        ("tf32", torch.float32, "tf32"),
        ("bfloat16", torch.bfloat16, "ieee"),
        ("float16", torch.float16, "ieee"),
    ],
)
def test_a_network_has_its_precision_whatever_the_caller_has(precision, dtype, inside):
    before, x = switches(), torch.ones(2, 2)
    with multiplying_in("tf32"), torch.autocast("cpu", torch.bfloat16):
        with network_precision(torch.device("cpu"), precision):
            assert switches() == [inside, "ieee"]
            assert (x @ x).dtype == dtype
        assert (x @ x).dtype == torch.bfloat16
        assert switches() == ["tf32", "ieee"]
    assert switches() == before


def test_products_may_be_in_tf32_too():
    with network_precision(torch.device("cpu"), "tf32", products=True):
        assert switches() == ["tf32", "tf32"]
    with network_precision(torch.device("cpu"), "float32", products=True):
        assert switches() == ["ieee", "ieee"]


def test_an_unknown_precision_is_refused():
    assert require_precision("tf32") == "tf32"
    with pytest.raises(DataError) as caught:
        require_precision("fp16")
    assert caught.value.code == Code.UNKNOWN_CHOICE


def test_tf32_on_a_cpu_is_float32():
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    with multiplying_in("tf32"):
        there = x @ x
    assert torch.equal(there, x @ x)
