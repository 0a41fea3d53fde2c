"""Train denoisers of the digits; `pairs_scores.py` scores them.

    OMP_NUM_THREADS=1 python benchmarks/pairs_trainings.py --seeds 0 1 2 --images 600000 2400000

Network, batch size, number of images, optimizer and noise distribution are the same for all methods,
except that flow matching has a different preconditioner and noise distribution. `--levers` trains
variants of a method, such as `edm-aot-512/width`, each with one change. Finished runs are not repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import genkit
from genkit import component
from genkit.parts.no_stages import NoStages

RECIPE = """name = "{method}"
seed = {seed}
data = {data}
{earlier}
[[stage]]
id = "denoiser"
use = "train"
images = {images}
batch_size = 256
pool_size = {pool}
network = {network}
objective = {{ use = "denoising", noise_distribution = {levels} }}
coupler = {coupler}
{more}
"""

EDM = {
    "data": '{ use = "digits" }',
    "network": '{ use = "mlp" }',
    "levels": '{ use = "log-normal", p_mean = -0.8, p_std = 1.8 }',
    "pool": 512,
    "earlier": "",
    "more": "",
}
FLOW = EDM | {
    "network": '{ use = "mlp", preconditioner = { use = "flow" } }',
    "levels": '{ use = "flow" }',
}
METHODS = {
    "edm": EDM | {"coupler": '{ use = "random" }'},
    "edm-aot-512": EDM | {"coupler": '{ use = "hungarian" }'},
    "edm-aot-512-coupled": EDM
    | {
        "coupler": '{ use = "hungarian" }',
        # The covariance printed by `genkit audit` for these pairs.
        "network": '{ use = "mlp", preconditioner = { use = "coupled", covariance = 0.17 } }',
    },
    "edm-aot-1536": EDM | {"coupler": '{ use = "hungarian" }', "pool": 1536},
    "semidiscrete": EDM
    | {
        "coupler": '{ use = "semidiscrete", potential = "potential" }',
        "earlier": '[[stage]]\nid = "potential"\nuse = "fit-potential"\n',
    },
    "flow": FLOW | {"coupler": '{ use = "random" }'},
    "ot-flow": FLOW | {"coupler": '{ use = "hungarian", cost = "squared" }'},
}
"""Dict from method to the settings of its train stage."""


def _log_normal(mean: float, deviation: float) -> dict[str, str]:
    return {"levels": f'{{ use = "log-normal", p_mean = {mean}, p_std = {deviation} }}'}


LEVERS = {
    "edm-levels": _log_normal(-1.2, 1.2),
    "lower": _log_normal(-1.6, 1.8),
    "narrow": _log_normal(-0.8, 1.2),
    "higher": _log_normal(0.0, 1.8),
    "wide": _log_normal(-0.8, 2.4),
    "high-20": {"levels": '{ use = "coupled", high_share = 0.2 }'},
    "high-40": {"levels": '{ use = "coupled", high_share = 0.4 }'},
    "width": {"network": '{ use = "mlp", width = 1024 }'},
    "blocks": {"network": '{ use = "mlp", blocks = 6 }'},
    "pool-128": {"pool": 128},
    "half-data": {"data": '{ use = "npz", path = "half.npz", labels = false }'},
    # A pool contains an image up to three times, with different noise.
    "repeated": {"data": '{ use = "npz", path = "repeated.npz", labels = false }'},
    "short-average": {"more": 'average = { use = "ema", half_life = 5_000 }'},
    "decay": {"more": 'optimizer = { use = "adam", learning_rate_decay = 100_000 }'},
}
"""Dict from variant to the settings of the train stage that it changes."""


def settings(name: str) -> dict[str, object]:
    """Return the settings of ``METHOD`` or ``METHOD/LEVER``."""
    method, _, lever = name.partition("/")
    return METHODS[method] | (LEVERS[lever] if lever else {})


def folder(out: Path, name: str, images: int, seed: int) -> Path:
    """Return the folder of a run."""
    return out / f"{name.replace('/', '_')}-{images}-{seed}"


def train(out: Path, name: str, images: int, seed: int) -> None:
    """Train one denoiser; its network is ``denoiser.safetensors`` in its folder."""
    out.mkdir(parents=True, exist_ok=True)
    where = folder(out, name, images, seed)
    digits = component("dataset", "digits").load(NoStages()).data
    np.savez(out / "half.npz", images=digits[::2])
    np.savez(out / "repeated.npz", images=np.repeat(digits, 3, axis=0))
    recipe = where.with_name(where.name + ".toml")
    text = RECIPE.format(method=where.name, images=images, seed=seed, **settings(name))
    recipe.write_text(text, encoding="utf-8")
    genkit.run_recipe(recipe, out=where, progress=True)


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--levers", nargs="+", choices=LEVERS, help="variants of the methods")
    parser.add_argument("--images", nargs="+", type=int, default=[600_000, 2_400_000])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/pairs"))
    chosen = parser.parse_args()
    for images in chosen.images:
        for seed in chosen.seeds:
            for lever in chosen.levers or [""]:
                for method in chosen.methods:
                    name = f"{method}/{lever}" if lever else method
                    train(chosen.out, name, images, seed)


if __name__ == "__main__":
    main()
