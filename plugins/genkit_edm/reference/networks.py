"""Conversion of networks from the reference implementations of EDM and EDM2."""

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
from genkit_edm.reference.names import Layout, build_edm2_layout, build_layout
from genkit_edm.unet.denoisers import Ddpmpp, HalvingDenoiser, Ncsnpp
from genkit_edm.unet.network import UNet

Table = Mapping[str, Any]

_SIZES = ("img_resolution", "img_channels", "label_dim")


def network_from_reference(precond: str, arguments: Table) -> tuple[HalvingDenoiser, DataSpec]:
    """Return the settings for a network of the reference, and the specification of its data.

    Args:
        precond: name of the preconditioning class: EDMPrecond, VPPrecond, VEPrecond or
            iDDPMPrecond (EDM), or Precond (EDM2).
        arguments: arguments of its constructor; missing arguments have the reference's defaults.

    Raises:
        DataError: a class or an argument is unknown, or a value is not supported.
    """
    kind = _look_up(precond, PRECONDS, "preconditioning")
    default, *others = kind.models
    model_type = arguments.get("model_type", default)
    model = _look_up(model_type, {name: NETWORKS[name] for name in kind.models}, "network")
    sizes = (*_SIZES, "augment_dim") if model.settings.takes_augment_labels else _SIZES
    names = {*sizes, *kind.names, *kind.fixed, *model.defaults, *model.fixed, "use_fp16"}
    if others:
        names.add("model_type")
    for name in arguments:
        if name not in names:
            raise DataError(
                f"unknown argument {name} of {precond} with {model_type}; "
                f"{near_match(name, names) or 'known: ' + ', '.join(sorted(names))}",
                Code.UNKNOWN_KEY,
            )
    resolution, channels = (_count(name, arguments, 1) for name in _SIZES[:2])
    classes, augment_labels = (_count(name, arguments, 0) for name in ("label_dim", "augment_dim"))
    values: dict[str, Any] = {
        SETTINGS[name]: _hashable(value)
        for name, value in {**model.defaults, **_part(arguments, model.defaults)}.items()
    }
    if not classes:
        values["label_dropout"] = 0.0  # without labels, the reference keeps its default
    network = model.settings
    if network is Ddpmpp and values["embedding"] == "fourier":
        network = Ncsnpp
    try:
        settings: HalvingDenoiser = network(
            preconditioner=kind.settings(
                **{kind.names[name]: value for name, value in _part(arguments, kind.names).items()}
            ),
            class_conditional=classes > 0,
            **values,
        )
    except SettingError as error:
        raise DataError(
            f"no network can be built from the arguments of {precond}: {error}",
            error.problems[0].code,
        ) from error
    _require_consistent(settings, precond)
    _require_supported({**kind.fixed, **model.fixed}, settings, arguments)
    return settings, DataSpec((channels, resolution, resolution), classes, False, 0, augment_labels)


def from_reference(
    weights: Mapping[str, Tensor], precond: str, arguments: Table
) -> tuple[HalvingDenoiser, DataSpec, dict[str, Tensor]]:
    """Convert a trained network of the reference to settings, data specification and weights.

    Args:
        weights: all parameters and buffers, keyed by the reference's names, such as
            ``model.enc.8x8_conv.weight``.
        precond: as for :func:`network_from_reference`.
        arguments: as for :func:`network_from_reference`.

    Returns:
        Settings, with the table of noise levels if the weights contain one; specification of the
        data; and float32 state dictionary of ``settings.build(spec)``.

    Raises:
        DataError: as for :func:`network_from_reference`; or a weight is missing, unexpected or not
            finite, or its shape or type differs from what the arguments require. The error names
            the first such weight.
    """
    settings, spec = network_from_reference(precond, arguments)
    layout = _layout(settings, spec, len(weights))
    result = {}
    for name, entry in layout.entries.items():
        value = _require_weight(weights, name, entry.shape)
        result[entry.ours] = entry.convert(value.float())
    for name, expected in layout.fixed.items():
        value = _require_weight(weights, name, tuple(expected.shape))
        if not torch.allclose(value.float(), expected, rtol=1e-3, atol=1e-7):
            raise DataError(
                f"{name} must have the values that follow from the arguments, got others",
                Code.CONFLICT,
            )
    for name in weights:
        if name not in layout.entries and name not in layout.fixed:
            raise DataError(
                f"{name} is not part of the network that the arguments describe", Code.CONFLICT
            )
    if isinstance(settings.preconditioner, IddpmPreconditioner):
        # The reference's last level is 0, at which networks are not evaluated.
        levels = weights["u"].float()[:-1].flip(0).tolist()
        preconditioner = dataclasses.replace(settings.preconditioner, table=tuple(levels))
        settings = dataclasses.replace(settings, preconditioner=preconditioner)
        _require_consistent(settings, precond)
    return settings, spec, result


def denoiser_from_reference(
    weights: Mapping[str, Tensor], precond: str, arguments: Table
) -> nn.Module:
    """Convert a network of the reference to a denoiser in eval mode.

    Call it as ``denoiser(x, sigma, labels, augment_labels=None)``.

    Args:
        weights: as for :func:`from_reference`.
        precond: as for :func:`network_from_reference`.
        arguments: as for :func:`network_from_reference`.

    Raises:
        DataError: as for :func:`from_reference`.
    """
    settings, spec, ours = from_reference(weights, precond, arguments)
    with seeded(0):
        denoiser = settings.build(spec)
    denoiser.load_state_dict(ours)
    return denoiser.eval()


def _look_up(name: Any, table: Mapping[str, Any], what: str) -> Any:
    if not isinstance(name, str) or name not in table:
        raise DataError(
            f"the {what} must be one of {', '.join(table)}, got {name!r}",
            Code.UNKNOWN_CHOICE,
        )
    return table[name]


def _part(arguments: Table, names: Table) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name in names}


def _count(name: str, arguments: Table, minimum: int) -> int:
    value = arguments.get(name, minimum if minimum == 0 else None)
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise DataError(
            f"{name} must be an integer of at least {minimum}, got {value!r}", Code.OUT_OF_RANGE
        )
    return value


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _require_consistent(settings: HalvingDenoiser, precond: str) -> None:
    """Check that the settings do not contradict each other, else raise DataError."""
    for part in (settings, settings.preconditioner):
        for problem in part.check({}):
            raise DataError(
                f"no network can be built from the arguments of {precond}: "
                f"{problem.key[0]}: {problem.reason}",
                Code.CONFLICT,
            )


def _require_supported(
    fixed: Mapping[str, Allowed], settings: HalvingDenoiser, arguments: Table
) -> None:
    """Check that genkit's network supports the values of all arguments, else raise DataError."""
    for name, value in _part(arguments, fixed).items():
        allowed = fixed[name](settings.channel_mult)
        if _hashable(value) not in allowed:
            raise DataError(
                f"{name} must be {' or '.join(map(quote, allowed))}, got {quote(value)}; "
                "networks with other values cannot be imported",
                Code.CONFLICT,
            )


def _layout(settings: HalvingDenoiser, spec: DataSpec, tensors: int) -> Layout:
    """Return the layout of the reference's tensors, from a denoiser built on the meta device."""
    blocks = len(settings.channel_mult) * (2 * settings.blocks + 1)
    if blocks > tensors:
        raise DataError(
            f"the file must have weights for {blocks} blocks, got {tensors} weights",
            Code.WRONG_LENGTH,
        )
    with torch.device("meta"):
        denoiser = settings.build(spec)
    resolution = spec.shape[1]
    if isinstance(settings, Edm2):
        return build_edm2_layout(denoiser, settings, resolution)
    network, preconditioner = cast(UNet, denoiser.network), settings.preconditioner
    if isinstance(preconditioner, IddpmPreconditioner):
        levels = preconditioner.formula()
        u = torch.cat([levels.flip(0), levels.new_zeros(1)]).float()
        layout = build_layout(network, resolution, learned_variance=True)
        return Layout(layout.entries, {**layout.fixed, "u": u})
    return build_layout(network, resolution, learned_variance=False)


def _require_weight(weights: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    if name not in weights:
        raise DataError(
            f"{name} is missing, but the arguments describe a network with it", Code.NOT_FOUND
        )
    value = weights[name]
    if tuple(value.shape) != shape:
        raise DataError(
            f"{name} must have shape {list(shape)}, got {list(value.shape)}",
            Code.WRONG_SHAPE,
        )
    if not value.is_floating_point():
        raise DataError(
            f"{name} must contain floating-point numbers, got {value.dtype}", Code.WRONG_TYPE
        )
    if not bool(value.isfinite().all()):
        raise DataError(f"{name} must be finite, got inf or nan", Code.NOT_FINITE)
    return value
