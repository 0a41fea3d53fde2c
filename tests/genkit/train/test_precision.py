"""In which arithmetic a network computes, and that nothing of it stays behind."""

from __future__ import annotations

import pytest
import torch

from genkit.train.precision import autocast, multiplying_in

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


def test_tf32_on_a_cpu_is_float32():
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    with multiplying_in("tf32"):
        there = x @ x
    assert torch.equal(there, x @ x)
