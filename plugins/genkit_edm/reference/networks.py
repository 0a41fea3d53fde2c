"""Networks of EDM's and EDM2's reference implementations as ours: settings, weights, denoisers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from genkit.errors import Code, DataError, SettingError
from genkit.random import seeded
from genkit.settings import near_match, quote
from genkit.types import DataSpec
from genkit_edm.edm2.denoiser import Edm2
from genkit_edm.iddpm import IddpmPreconditioner
from genkit_edm.reference.arguments import NETWORKS, PRECONDS, SETTINGS, Allowed
from genkit_edm.reference.names import Layout, edm2_layout_of, layout_of
from genkit_edm.unet.denoisers import Ddpmpp, HalvingDenoiser, Ncsnpp
from genkit_edm.unet.network import UNet

Table = Mapping[str, Any]

_SIZES = ("img_resolution", "img_channels", "label_dim")


def network_from_reference(precond: str, arguments: Table) -> tuple[HalvingDenoiser, DataSpec]:
    """Return the settings of a network of the reference, and the data it is for.

    Args:
        precond: class of the preconditioning: EDMPrecond, VPPrecond, VEPrecond or iDDPMPrecond of
            EDM, or Precond of EDM2.
        arguments: arguments of its constructor; the reference's defaults for those left out.

    Raises:
        DataError: a class or an argument is unknown, or a value is not supported.
    """
    kind = _known(precond, PRECONDS, "preconditioning")
    default, *others = kind.models
    model_type = arguments.get("model_type", default)
    model = _known(model_type, {name: NETWORKS[name] for name in kind.models}, "network")
    sizes = (*_SIZES, "augment_dim") if model.settings.takes_augment_labels else _SIZES
    known = {*sizes, *kind.names, *kind.fixed, *model.defaults, *model.fixed, "use_fp16"}
    if others:
        known.add("model_type")
    for name in arguments:
        if name not in known:
            raise DataError(
                f"{precond} with {model_type} has no argument {name}; "
                f"{near_match(name, known) or 'it has ' + ', '.join(sorted(known))}",
                Code.UNKNOWN_KEY,
            )
    resolution, channels = (_count(name, arguments, 1) for name in _SIZES[:2])
    classes, augment_labels = (_count(name, arguments, 0) for name in ("label_dim", "augment_dim"))
    chosen: dict[str, Any] = {
        SETTINGS[name]: _hashable(value)
        for name, value in {**model.defaults, **_part(arguments, model.defaults)}.items()
    }
    if not classes:
        chosen["label_dropout"] = 0.0  # there is nothing to drop
    network = model.settings
    if network is Ddpmpp and chosen["embedding"] == "fourier":
        network = Ncsnpp
    try:
        settings: HalvingDenoiser = network(
            preconditioner=kind.settings(
                **{kind.names[name]: value for name, value in _part(arguments, kind.names).items()}
            ),
            class_conditional=classes > 0,
            **chosen,
        )
    except SettingError as error:
        raise DataError(
            f"the arguments of {precond} make no network: {error}", error.problems[0].code
        ) from error
    _require_consistent(settings, precond)
    _require_supported({**kind.fixed, **model.fixed}, settings, arguments)
    return settings, DataSpec((channels, resolution, resolution), classes, False, 0, augment_labels)


def from_reference(
    weights: Mapping[str, Tensor], precond: str, arguments: Table
) -> tuple[HalvingDenoiser, DataSpec, dict[str, Tensor]]:
    """Return a trained network of the reference as ours: settings, data and weights.

    Args:
        weights: all of them, buffers too, under the reference's names, such as
            ``model.enc.8x8_conv.weight``.
        precond: as for :func:`network_from_reference`.
        arguments: likewise.

    Returns:
        The settings, with the noise levels among the weights where the network has a table of
        them; the specification of the data; and the float32 state of ``settings.build(spec)``.

    Raises:
        DataError: as for :func:`network_from_reference`; or a weight is missing, not expected, of
            another shape or type than the arguments make it, or not finite: the first is named.
    """
    settings, spec = network_from_reference(precond, arguments)
    layout = _layout(settings, spec, len(weights))
    result = {}
    for name, entry in layout.entries.items():
        value = _found(weights, name, entry.shape)
        result[entry.ours] = entry.convert(value.float())
    for name, expected in layout.fixed.items():
        value = _found(weights, name, tuple(expected.shape))
        if not torch.allclose(value.float(), expected, rtol=1e-3, atol=1e-7):
            raise DataError(f"{name} is not what the arguments make it", Code.CONFLICT)
    for name in weights:
        if name not in layout.entries and name not in layout.fixed:
            raise DataError(
                f"{name} is not part of the network that the arguments make", Code.CONFLICT
            )
    if isinstance(settings.preconditioner, IddpmPreconditioner):
        # The last level of the reference is 0, which no network is evaluated at.
        levels = weights["u"].float()[:-1].flip(0).tolist()
        preconditioner = dataclasses.replace(settings.preconditioner, table=tuple(levels))
        settings = dataclasses.replace(settings, preconditioner=preconditioner)
        _require_consistent(settings, precond)
    return settings, spec, result


def denoiser_from_reference(
    weights: Mapping[str, Tensor], precond: str, arguments: Table
) -> nn.Module:
    """Return a network of the reference as ours, in eval mode.

    It is called as ``denoiser(x, sigma, labels, augment_labels=None)``.

    Args:
        weights: as for :func:`from_reference`.
        precond: likewise.
        arguments: likewise.

    Raises:
        DataError: likewise.
    """
    settings, spec, ours = from_reference(weights, precond, arguments)
    with seeded(0):
        denoiser = settings.build(spec)
    denoiser.load_state_dict(ours)
    return denoiser.eval()


def _known(name: Any, table: Mapping[str, Any], what: str) -> Any:
    if not isinstance(name, str) or name not in table:
        raise DataError(
            f"{name!r} is no {what} of the reference; it has {', '.join(table)}",
            Code.UNKNOWN_CHOICE,
        )
    return table[name]


def _part(arguments: Table, names: Table) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name in names}


def _count(name: str, arguments: Table, least: int) -> int:
    value = arguments.get(name, least if least == 0 else None)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise DataError(
            f"{name} is {value!r}, and must be an integer of at least {least}", Code.OUT_OF_RANGE
        )
    return value


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _require_consistent(settings: HalvingDenoiser, precond: str) -> None:
    """Raise DataError where settings contradict each other."""
    for part in (settings, settings.preconditioner):
        for problem in part.check({}):
            raise DataError(
                f"the arguments of {precond} make no network: {problem.key[0]}: {problem.reason}",
                Code.CONFLICT,
            )


def _require_supported(
    fixed: Mapping[str, Allowed], settings: HalvingDenoiser, arguments: Table
) -> None:
    """Raise DataError where an argument has a value that our network cannot have."""
    for name, value in _part(arguments, fixed).items():
        allowed = fixed[name](settings.channel_mult)
        if _hashable(value) not in allowed:
            raise DataError(
                f"{name} must be {' or '.join(map(quote, allowed))}, got {quote(value)}; "
                "a network with another value cannot be imported",
                Code.CONFLICT,
            )


def _layout(settings: HalvingDenoiser, spec: DataSpec, tensors: int) -> Layout:
    """Return what the reference would have, from our denoiser built without memory."""
    blocks = len(settings.channel_mult) * (2 * settings.blocks + 1)
    if blocks > tensors:
        raise DataError(
            f"{tensors} weights are too few for the {blocks} blocks of the network",
            Code.WRONG_LENGTH,
        )
    with torch.device("meta"):
        denoiser = settings.build(spec)
    resolution = spec.shape[1]
    if isinstance(settings, Edm2):
        return edm2_layout_of(denoiser, settings, resolution)
    network, preconditioner = cast(UNet, denoiser.network), settings.preconditioner
    if isinstance(preconditioner, IddpmPreconditioner):
        levels = preconditioner.formula()
        u = torch.cat([levels.flip(0), levels.new_zeros(1)]).float()
        layout = layout_of(network, resolution, learned_variance=True)
        return Layout(layout.entries, {**layout.fixed, "u": u})
    return layout_of(network, resolution, learned_variance=False)


def _found(weights: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    if name not in weights:
        raise DataError(
            f"{name} is missing, which the network that the arguments make has", Code.NOT_FOUND
        )
    value = weights[name]
    if tuple(value.shape) != shape:
        raise DataError(
            f"{name} has shape {list(value.shape)} where the arguments make it {list(shape)}",
            Code.WRONG_SHAPE,
        )
    if not value.is_floating_point():
        raise DataError(
            f"{name} holds {value.dtype} where floating-point numbers are needed", Code.WRONG_TYPE
        )
    if not bool(value.isfinite().all()):
        raise DataError(f"{name} holds a value that is not finite", Code.NOT_FINITE)
    return value
