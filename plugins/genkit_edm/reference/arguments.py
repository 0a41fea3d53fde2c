"""Constructor arguments of the classes of EDM and EDM2, mapped to settings of genkit.

Names and defaults are those in the checkpoints that NVIDIA publishes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from genkit.interfaces import Preconditioner
from genkit_edm.edm import EdmPreconditioner
from genkit_edm.edm2.denoiser import Edm2
from genkit_edm.edm2.network import BRANCH_SHARE, LABEL_SHARE, MAX_ACTIVATION
from genkit_edm.edm2.uncertainty import FEATURES
from genkit_edm.iddpm import IddpmPreconditioner
from genkit_edm.unet.denoisers import Adm, Ddpmpp, HalvingDenoiser
from genkit_edm.ve import VePreconditioner
from genkit_edm.vp import VpPreconditioner

EDM2 = "Precond"
"""Name of the preconditioning class of EDM2."""

Allowed = Callable[[tuple[int, ...]], tuple[Any, ...]]
"""Function from ``channel_mult`` to the supported values of an argument."""


@dataclass(frozen=True)
class PrecondClass:
    """A preconditioning class of the reference.

    Attributes:
        settings: class of the component in genkit.
        models: names of the network classes that it may contain, the default first.
        names: dict from argument names to names of settings.
        fixed: supported values of arguments without a setting, keyed by argument name.
    """

    settings: type[Preconditioner]
    models: tuple[str, ...]
    names: Mapping[str, str]
    fixed: Mapping[str, Allowed] = field(default_factory=dict)


@dataclass(frozen=True)
class NetworkClass:
    """A network class of the reference.

    Attributes:
        settings: class of the component in genkit.
        defaults: default values of its arguments, keyed by argument name.
        fixed: supported values of arguments without a setting, keyed by argument name.
    """

    settings: type[HalvingDenoiser]
    defaults: Mapping[str, Any]
    fixed: Mapping[str, Allowed] = field(default_factory=dict)


def _only(value: Any) -> Allowed:
    return lambda _: (value,)


PRECONDS: Mapping[str, PrecondClass] = MappingProxyType(
    {
        "EDMPrecond": PrecondClass(
            EdmPreconditioner,
            ("DhariwalUNet", "SongUNet"),
            {"sigma_data": "sigma_data"},
            # The reference's samplers clip noise levels to these; genkit's preconditioner does not.
            {"sigma_min": _only(0), "sigma_max": _only(math.inf)},
        ),
        "VPPrecond": PrecondClass(
            VpPreconditioner,
            ("SongUNet", "DhariwalUNet"),
            {"beta_d": "beta_d", "beta_min": "beta_min", "M": "m", "epsilon_t": "eps_t"},
        ),
        "VEPrecond": PrecondClass(
            VePreconditioner,
            ("SongUNet", "DhariwalUNet"),
            {"sigma_min": "sigma_min", "sigma_max": "sigma_max"},
        ),
        "iDDPMPrecond": PrecondClass(
            IddpmPreconditioner,
            ("DhariwalUNet", "SongUNet"),
            {"C_1": "c_1", "C_2": "c_2", "M": "m"},
        ),
        EDM2: PrecondClass(EdmPreconditioner, ("UNet",), {"sigma_data": "sigma_data"}),
    }
)

NETWORKS: Mapping[str, NetworkClass] = MappingProxyType(
    {
        "SongUNet": NetworkClass(
            Ddpmpp,
            {
                "model_channels": 128,
                "channel_mult": (1, 2, 2, 2),
                "channel_mult_emb": 4,
                "num_blocks": 4,
                "attn_resolutions": (16,),
                "dropout": 0.1,
                "label_dropout": 0.0,
                "embedding_type": "positional",
                "channel_mult_noise": 1,
                "encoder_type": "standard",
                "decoder_type": "standard",
                "resample_filter": (1, 1),
            },
        ),
        "DhariwalUNet": NetworkClass(
            Adm,
            {
                "model_channels": 192,
                "channel_mult": (1, 2, 3, 4),
                "channel_mult_emb": 4,
                "num_blocks": 3,
                "attn_resolutions": (32, 16, 8),
                "dropout": 0.1,
                "label_dropout": 0.0,
            },
        ),
        "UNet": NetworkClass(
            Edm2,
            {
                "model_channels": 192,
                "channel_mult": (1, 2, 3, 4),
                "num_blocks": 3,
                "attn_resolutions": (16, 8),
                "channels_per_head": 64,
                "dropout": 0.0,
            },
            {
                "channel_mult_noise": lambda channel_mult: (None, channel_mult[0]),
                "channel_mult_emb": lambda channel_mult: (None, max(channel_mult)),
                "label_balance": _only(LABEL_SHARE),
                "concat_balance": _only(0.5),
                "res_balance": _only(BRANCH_SHARE),
                "attn_balance": _only(BRANCH_SHARE),
                "clip_act": _only(MAX_ACTIVATION),
                "resample_filter": _only((1, 1)),
                "logvar_channels": _only(FEATURES),
            },
        ),
    }
)

SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "model_channels": "channels",
        "channel_mult": "channel_mult",
        "channel_mult_emb": "channel_mult_emb",
        "num_blocks": "blocks",
        "attn_resolutions": "attention",
        "channels_per_head": "channels_per_head",
        "dropout": "dropout",
        "label_dropout": "label_dropout",
        "embedding_type": "embedding",
        "channel_mult_noise": "channel_mult_noise",
        "encoder_type": "encoder",
        "decoder_type": "decoder",
        "resample_filter": "resample_filter",
    }
)
"""Dict from the names of a network's arguments to names of settings."""
