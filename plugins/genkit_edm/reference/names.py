"""Names, shapes and element order that the tensors of genkit's networks have in the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, cast

from torch import Tensor, nn

from genkit_edm.edm2.denoiser import Edm2
from genkit_edm.unet.family import ADM
from genkit_edm.unet.layers import Block, Resampling, make_kernel
from genkit_edm.unet.network import DecoderLevel, EncoderLevel, InputSkip, UNet

Convert = Callable[[Tensor], Tensor]
"""Function that converts a tensor of the reference to genkit's."""

Place = tuple[str, str]
"""Name of a module in genkit's network, and its name in the reference's network."""


class Entry(NamedTuple):
    """A tensor of the reference and its counterpart.

    Attributes:
        ours: name of the tensor in genkit's denoiser.
        shape: shape in the reference.
        convert: function that converts the reference's tensor to genkit's.
    """

    ours: str
    shape: tuple[int, ...]
    convert: Convert


class Layout(NamedTuple):
    """The tensors of a network of the reference.

    Attributes:
        entries: tensors that have a counterpart in genkit, keyed by their name in the reference.
        fixed: values of tensors that follow from the settings, keyed by their name in the
            reference.
    """

    entries: Mapping[str, Entry]
    fixed: Mapping[str, Tensor]


def build_layout(network: UNet, resolution: int, learned_variance: bool) -> Layout:
    """Return the layout of the reference's tensors for a network of genkit.

    Args:
        network: network of genkit; may be on the meta device.
        resolution: height of its images.
        learned_variance: whether the reference's network has twice as many output channels; the
            denoiser uses only the first half.
    """
    state = network.state_dict()
    sizes = [f"{resolution >> level}" for level in range(len(network.encoder))]
    sizes = [f"{size}x{size}" for size in sizes]
    entries = {}
    for ours, theirs in _places(network, sizes):
        for kind in ("weight", "bias", "freqs"):
            name = f"{ours}.{kind}"
            if name in state:
                entries[f"model.{theirs}.{kind}"] = Entry(
                    f"network.{name}", *_stored(name, state[name], network, learned_variance)
                )
    fixed = {
        f"model.{theirs}.resample_filter": make_kernel(filter_.taps)[None, None]
        for theirs, filter_ in _filters(network, sizes)
    }
    return Layout(entries, fixed)


def _stored(
    ours: str, value: Tensor, network: UNet, learned_variance: bool
) -> tuple[tuple[int, ...], Convert]:
    """Return the shape of a tensor in the reference, and the function that converts it."""
    shape = tuple(value.shape)
    layer, _, kind = ours.rpartition(".")
    if layer.endswith(".qkv"):
        return shape, reorder_qkv
    if layer.endswith("image_out.conv") and learned_variance:
        return (2 * shape[0], *shape[1:]), lambda v: v[: shape[0]].clone()
    if network.family is ADM and kind == "weight":
        # ADM's embedding has the cosines first, genkit's has the sines first.
        if layer == "conditioning.first":
            return shape, lambda v: v.roll(shape[1] // 2, 1)
        if layer == "conditioning.augment":
            return shape, lambda v: v.roll(shape[0] // 2, 0)
    return shape, identity


def identity(value: Tensor) -> Tensor:
    """Return the tensor unchanged."""
    return value


def reorder_qkv(value: Tensor) -> Tensor:
    """Reorder ``[3 C, ...]`` from (q, k, v) per channel to all q, then all k, then all v."""
    by_channel = value.view(-1, 3, *value.shape[1:])
    return by_channel.transpose(0, 1).flatten(0, 1)


def _places(network: UNet, sizes: list[str]) -> Iterator[Place]:
    """Yield the names of all layers, in the order of the reference."""
    for ours, theirs in (
        ("noise", "map_noise"),
        ("label.linear", "map_label"),
        ("augment", "map_augment"),
        ("first", "map_layer0"),
        ("second", "map_layer1"),
    ):
        yield f"conditioning.{ours}", theirs
    encoders = _encoders(network)
    yield "stem", f"enc.{sizes[0]}_conv"
    for level, size in enumerate(sizes):
        here = f"encoder.{level}"
        yield from _in_block(f"{here}.down", f"enc.{size}_down")
        kind = "skip" if isinstance(encoders[level].image_in, InputSkip) else "residual"
        yield f"{here}.image_in.conv", f"enc.{size}_aux_{kind}"
        for block in range(len(encoders[level].blocks)):
            yield from _in_block(f"{here}.blocks.{block}", f"enc.{size}_block{block}")
    for block in range(2):
        yield from _in_block(f"middle.{block}", f"dec.{sizes[-1]}_in{block}")
    for level, size in enumerate(reversed(sizes)):
        here = f"decoder.{level}"
        yield from _in_block(f"{here}.up", f"dec.{size}_up")
        for block in range(network.skips):
            yield from _in_block(f"{here}.blocks.{block}", f"dec.{size}_block{block}")
        out = "out" if network.family is ADM else f"dec.{size}_aux"
        yield f"{here}.image_out.norm", f"{out}_norm"
        yield f"{here}.image_out.conv", f"{out}_conv"


def _in_block(ours: str, theirs: str) -> Iterator[Place]:
    for layer in ("norm0", "conv0", "affine", "norm1", "conv1", "skip"):
        yield f"{ours}.{layer}", f"{theirs}.{layer}"
    for mine, layer in (("norm", "norm2"), ("qkv", "qkv"), ("proj", "proj")):
        yield f"{ours}.attention.{mine}", f"{theirs}.{layer}"


def _filters(network: UNet, sizes: list[str]) -> Iterator[tuple[str, Resampling]]:
    """Yield the name of each resampling filter in the reference, and genkit's module."""
    for level, size in zip(_encoders(network), sizes, strict=True):
        if level.down is not None:
            yield from _block_filters(level.down, f"enc.{size}_down")
        if level.image_in is not None:
            kind = "down" if isinstance(level.image_in, InputSkip) else "residual"
            yield f"enc.{size}_aux_{kind}", level.image_in.down
    decoders = cast(Iterable[DecoderLevel], network.decoder)
    for decoder, size in zip(decoders, reversed(sizes), strict=True):
        if decoder.up is not None:
            yield from _block_filters(decoder.up, f"dec.{size}_up")
        if decoder.image_out is not None and decoder.image_out.up is not None:
            yield f"dec.{size}_aux_up", decoder.image_out.up


def _block_filters(block: Block, theirs: str) -> Iterator[tuple[str, Resampling]]:
    for layer in ("conv0", "skip"):
        yield f"{theirs}.{layer}", cast(Resampling, block.resampling)


def _encoders(network: UNet) -> list[EncoderLevel]:
    return list(cast(Iterable[EncoderLevel], network.encoder))


_IN_BLOCK = {
    "skip.weight": "conv_skip.weight",
    "conv0.weight": "conv_res0.weight",
    "scale.weight": "emb_linear.weight",
    "scale_gain": "emb_gain",
    "conv1.weight": "conv_res1.weight",
    "attention.qkv.weight": "attn_qkv.weight",
    "attention.proj.weight": "attn_proj.weight",
}

_OUTSIDE = {
    "network.embedding.fourier.frequencies": "unet.emb_fourier.freqs",
    "network.embedding.fourier.phases": "unet.emb_fourier.phases",
    "network.embedding.noise.weight": "unet.emb_noise.weight",
    "network.embedding.label.linear.weight": "unet.emb_label.weight",
    "network.out.weight": "unet.out_conv.weight",
    "network.out_gain": "unet.out_gain",
    "uncertainty_features.frequencies": "logvar_fourier.freqs",
    "uncertainty_features.phases": "logvar_fourier.phases",
    "uncertainty_linear.weight": "logvar_linear.weight",
}


def build_edm2_layout(denoiser: nn.Module, settings: Edm2, resolution: int) -> Layout:
    """Return the layout of the reference's tensors for an EDM2 denoiser of genkit.

    Args:
        denoiser: denoiser built from the settings; may be on the meta device.
        settings: settings of the denoiser.
        resolution: height of its images.
    """
    sizes = [f"{resolution >> level}" for level in range(len(settings.channel_mult))]
    sizes = [f"{size}x{size}" for size in sizes]
    blocks = dict(_blocks(sizes, settings.blocks))
    outside = {**_OUTSIDE, "network.stem.weight": f"unet.enc.{sizes[0]}_conv.weight"}
    entries = {}
    for name, value in denoiser.state_dict().items():
        if name in outside:
            theirs = outside[name]
        else:
            side, index, rest = name.removeprefix("network.").split(".", 2)
            theirs = f"unet.{blocks[f'{side}.{index}']}.{_IN_BLOCK[rest]}"
        convert = reorder_qkv if name.endswith(".qkv.weight") else identity
        entries[theirs] = Entry(name, tuple(value.shape), convert)
    return Layout(entries, {})


def _blocks(sizes: list[str], count: int) -> Iterator[tuple[str, str]]:
    """Yield the names of each block in genkit's network and in the reference's network."""
    encoder, decoder = [], []
    for level, size in enumerate(sizes):
        encoder += [f"enc.{size}_down"] if level else []
        encoder += [f"enc.{size}_block{index}" for index in range(count)]
    for level, size in reversed(list(enumerate(sizes))):
        decoder += [f"dec.{size}_up"] if level < len(sizes) - 1 else []
        decoder += [f"dec.{size}_block{index}" for index in range(count + 1)]
    middle = [f"dec.{sizes[-1]}_in{index}" for index in range(2)]
    for side, names in (("encoder", encoder), ("middle", middle), ("decoder", decoder)):
        yield from ((f"{side}.{index}", name) for index, name in enumerate(names))
