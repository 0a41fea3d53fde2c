"""Where the tensors of our EDM2 network are in the reference."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from genkit_edm.edm2 import Edm2
from genkit_edm.reference_names import Entry, Layout, queries_first, unchanged

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


def edm2_layout_of(denoiser: nn.Module, settings: Edm2, resolution: int) -> Layout:
    """Return the reference's tensors for a denoiser of ours.

    Args:
        denoiser: denoiser that was built from the settings, also on the meta device.
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
        convert = queries_first if name.endswith(".qkv.weight") else unchanged
        entries[theirs] = Entry(name, tuple(value.shape), convert)
    return Layout(entries, {})


def _blocks(sizes: list[str], count: int) -> Iterator[tuple[str, str]]:
    """Yield the names of each block: in our network, and in the reference's."""
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
