"""Train denoisers of the digits, and networks that guide them; `guidance_scores.py` scores them.

    OMP_NUM_THREADS=1 python benchmarks/guidance_trainings.py --seeds 0 1 2

A run contains a denoiser and the networks that guide it. These are discriminators, each with a fitted
weight and a snapshot that is chosen on held-out images; or, in `second` runs, a weaker denoiser.
EDM and EDM-AOT have the same network, batch size, number of images, optimizer and noise distribution.
Finished stages are not repeated.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import genkit

HEAD = """name = "{name}"
seed = {seed}
data = {{ use = "digits" }}
"""

DENOISER = """
[[stage]]
id = "{id}"
use = "train"
images = {images}
batch_size = 256
pool_size = {pool}
network = {{ use = "mlp"{network} }}
objective = {{ use = "denoising", noise_distribution = {{ use = "log-normal", p_mean = -0.8, p_std = 1.8 }} }}
coupler = {coupler}
"""

# The seeds differ from those of the samples that are scored.
FAKES = """
[[stage]]
id = "fakes"
use = "sample"
denoiser = "denoiser"
count = {count}
first_seed = 1_000_000
"""

DISCRIMINATOR = """
[[stage]]
id = "{id}-training"
use = "train"
images = {images}
batch_size = 256
pool_size = {pool}
data = {{ use = "real-and-fake", fakes = "fakes", held_out = 0.1, labels = {conditional} }}
network = {{ use = "scratch", channels = 16, multipliers = [1, 2], class_conditional = {conditional} }}
objective = {{ use = "discrimination" }}
coupler = {coupler}
average = {{ use = "ema", snapshot_images = {snapshot} }}

[[stage]]
id = "{id}"
use = "choose-discriminator"
discriminator = "{id}-training"

[[stage]]
id = "{id}-weight"
use = "fit-weight"
discriminator = "{id}"
denoiser = "denoiser"
"""

RANDOM = '{ use = "random" }'
HUNGARIAN = '{ use = "hungarian" }'

DISCRIMINATORS = ("dg", "aot-dg")
"""Ids of the discriminator stages: trained with random pairs, and with assigned noise."""


def within(*parts: str) -> str:
    """Return the table of a coupler that assigns noise within each group of a pool."""
    if not parts:
        return HUNGARIAN
    names = ", ".join(f'"{part}"' for part in parts)
    return f'{{ use = "partitioned", by = [{names}], inner = {HUNGARIAN} }}'


@dataclass(frozen=True)
class Method:
    """A method: how a denoiser is trained and guided.

    Attributes:
        pairs: whether the denoiser is trained with assigned noise.
        conditional: whether networks are conditioned on the class.
        second: whether a second denoiser guides, instead of discriminators.
    """

    pairs: bool
    conditional: bool = False
    second: bool = False

    @property
    def guidances(self) -> tuple[str, ...]:
        """Names of the guidances; AOT-DG only if the denoiser is trained with assigned noise."""
        if self.second:
            return ("classifier-free", "autoguidance")
        return DISCRIMINATORS if self.pairs else DISCRIMINATORS[:1]


METHODS = {
    "edm": Method(pairs=False),
    "edm-aot": Method(pairs=True),
    "edm-cond": Method(pairs=False, conditional=True),
    "edm-aot-cond": Method(pairs=True, conditional=True),
    "edm-second": Method(pairs=False, conditional=True, second=True),
    "edm-aot-second": Method(pairs=True, conditional=True, second=True),
}


@dataclass(frozen=True)
class Size:
    """Numbers of training images and of generated images.

    Attributes:
        denoiser: number of training images of a denoiser; a weaker denoiser has a quarter of them.
        discriminator: number of training images of a discriminator, in which 8 snapshots are
            written.
        fakes: number of generated images on which discriminators are trained.
    """

    denoiser: int
    discriminator: int
    fakes: int


def stages(method: Method, size: Size) -> Iterator[str]:
    """Yield the stages of a run that train networks."""
    by_class = ("label",) if method.conditional else ()
    pool = 1536 if method.conditional else 512
    coupler = within(*by_class) if method.pairs else RANDOM
    network = ", class_conditional = true" if method.conditional else ""
    hidden = ", label_dropout = 0.1" if method.second else ""
    yield DENOISER.format(
        id="denoiser", images=size.denoiser, pool=pool, network=network + hidden, coupler=coupler
    )
    if method.second:
        # Autoguidance requires a weaker denoiser with similar errors: smaller, with less training.
        yield DENOISER.format(
            id="guide",
            images=size.denoiser // 4,
            pool=pool,
            network=f"{network}, width = 256, blocks = 2",
            coupler=coupler,
        )
        return
    yield FAKES.format(count=size.fakes)
    for name in method.guidances:
        yield DISCRIMINATOR.format(
            id=name,
            images=size.discriminator,
            # The pool contains as many real and as many generated images as a denoiser's pool.
            pool=2 * pool,
            conditional=str(method.conditional).lower(),
            coupler=within("realness", *by_class) if name == "aot-dg" else RANDOM,
            snapshot=size.discriminator // 8,
        )


def run(name: str, seed: int, size: Size, out: Path, more: str = "") -> genkit.Result:
    """Train the networks of a run unless they exist, and run additional stages in its folder.

    Args:
        name: name of a method in :data:`METHODS`.
        seed: seed of the run.
        size: numbers of images.
        out: folder of all runs.
        more: additional stages, as TOML.
    """
    out.mkdir(parents=True, exist_ok=True)
    where = folder(out, name, seed)
    text = HEAD.format(name=where.name, seed=seed) + "".join(stages(METHODS[name], size)) + more
    recipe = where.with_name(f"{where.name}.toml")
    recipe.write_text(text, encoding="utf-8")
    return genkit.run_recipe(recipe, out=where, progress=True)


def folder(out: Path, name: str, seed: int) -> Path:
    """Return the folder of a run."""
    return out / f"{name}-{seed}"


def parser(doc: str) -> argparse.ArgumentParser:
    """Return a parser of the options that this script and `guidance_scores.py` have in common."""
    options = argparse.ArgumentParser(description=doc.splitlines()[0])
    options.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options.add_argument(
        "--images", type=int, default=600_000, help="number of training images of each denoiser"
    )
    options.add_argument("--discriminator-images", type=int, default=400_000)
    options.add_argument("--fakes", type=int, default=8192)
    options.add_argument("--out", type=Path, default=Path("runs/guidance"))
    return options


def size_of(chosen: argparse.Namespace) -> Size:
    """Return the numbers of images for parsed options."""
    return Size(chosen.images, chosen.discriminator_images, chosen.fakes)


def named(chosen: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Yield the method and the seed of each run: all methods for the first seed, then the next."""
    yield from ((name, seed) for seed in chosen.seeds for name in chosen.methods)


def main() -> None:
    """Parse the command line and train."""
    chosen = parser(__doc__).parse_args()
    for name, seed in named(chosen):
        run(name, seed, size_of(chosen), chosen.out)


if __name__ == "__main__":
    main()
