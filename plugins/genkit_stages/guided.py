"""The denoiser to which a discriminator belongs."""

from __future__ import annotations

from collections.abc import Iterator

from genkit.artifacts import DenoiserFile
from genkit.designs import components, references
from genkit.field_types import Reference
from genkit.fields import leaves_of
from genkit.interfaces import (
    Component,
    Context,
    Dataset,
    Discriminator,
    Network,
    Objective,
    Stage,
    Stages,
)


def guided_denoisers(
    data: Dataset, network: Network, objective: Objective, earlier: Stages
) -> dict[str, str]:
    """Return the stages of the denoisers on which a discriminator is trained.

    These are the denoiser to which the objective refers, and the one that drew the generated items
    of the data; without both, the one whose encoder the network uses. For guidance they must all be
    the guided denoiser.

    Returns:
        Map from the id of a stage to ``objective``, ``data`` or ``network``; empty if the network
        is not a discriminator.
    """
    if not isinstance(network, Discriminator):
        return {}
    denoisers = dict.fromkeys(_denoisers_in(objective), "objective")
    for part in components(data):
        if isinstance(part, Dataset) and (drawer := part.drawn_by(earlier)):
            denoisers.setdefault(drawer, "data")
    return denoisers or dict.fromkeys(_denoisers_in(network), "network")


def _denoisers_in(component: Component) -> Iterator[str]:
    """Yield the ids of the denoisers to which the settings of a component refer."""
    for _, kind, value in leaves_of(component):
        if isinstance(kind, Reference) and issubclass(kind.artifact, DenoiserFile):
            yield value


def guided_digest(
    data: Dataset, network: Network, objective: Objective, context: Context
) -> str | None:
    """Return the digest of the denoiser on which a discriminator is trained.

    None if the network is not a discriminator, or if the denoiser is unknown. If there are several
    denoisers, which is refused for guidance in the same recipe, it is that of the objective.
    """
    earlier: dict[str, Stage] = {}
    names = [name for part in (data, network, objective) for name in references(part)]
    while names:
        name = names.pop()
        if name not in earlier:
            earlier[name] = context.stage(name)
            names += references(earlier[name], result_only=True)
    denoisers = guided_denoisers(data, network, objective, earlier)
    first = next((name for name in denoisers if name in earlier), None)
    return None if first is None else context.network(first).digest
