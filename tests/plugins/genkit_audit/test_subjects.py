"""Which stages are audited."""

import torch

from genkit.plugin.manager import load_plugins
from genkit.plugin.registry import Owner, Registration
from genkit_audit.subjects import audit_stages
from genkit_stages.train import Train


class Longer(Train):
    """A third-party stage that trains on pairs."""


def test_a_third_party_stage_that_trains_on_pairs_is_audited(workplace):
    plugins = load_plugins()
    registration = Registration(Owner("outside", "genkit-outside", "0.1"))
    registration.add("stage", "longer", f"{__name__}:Longer")
    plugins.registry.accept(registration)
    recipe = workplace / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('use = "train"', 'use = "longer"', 1))

    arguments = (plugins, (), "denoiser", torch.device("cpu"), 256, None)
    (found,) = audit_stages(str(recipe), *arguments)

    assert found.statistics.pairs == 256
