"""Hash the results of shortened recipes, to verify that a refactoring changes no result.

    python benchmarks/same_bits.py before.json          # at one commit
    python benchmarks/same_bits.py after.json --against before.json     # at another

Every recipe runs with one thread on the CPU. The hash of weights and samples includes the name, type,
shape and bytes of each tensor, but not the metadata of the file. The hash of scores includes their
rows. Hashes differ between machines, so compare two commits on one machine with the same packages.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[1]
COMMON = ("samples.count=256",)
SHORTENED = {
    "smoke": ("denoiser.images=6000", "samples.count=256"),
    "edm": ("denoiser.images=6000", *COMMON, "sweep.count=128", "sweep.vary.schedule.steps=[3,5]"),
    "edm_aot": (
        "denoiser.images=6000",
        *COMMON,
        "sweep.count=128",
        "sweep.vary.schedule.steps=[3,5]",
    ),
    "edm_aot_dg": (
        "denoiser.images=6000",
        *COMMON,
        "fakes.count=512",
        "discriminator.images=4000",
        "discriminator.network.channels=8",
        "samples.schedule.steps=5",
        "sweep.count=128",
        "sweep.vary.schedule.steps=[3]",
    ),
    "edm_aot_cond": ("denoiser.images=9000", *COMMON),
    "edm2": (
        "denoiser.images=3000",
        "denoiser.batch_size=64",
        *COMMON,
        "samples.count=64",
        "samples.schedule.steps=5",
        "denoiser.network.channels=16",
        "denoiser.network.channels_per_head=16",
    ),
    "ot_flow": (
        "denoiser.images=6000",
        *COMMON,
        "sweep.count=128",
        "sweep.vary.schedule.steps=[5]",
    ),
}
# Settings whose names differ between commits; the first valid name is used.
RENAMED = {
    "edm2": (("denoiser.ema_snapshot_images=1000",), ("denoiser.average.snapshot_images=1000",))
}


def main() -> None:
    """Run the recipes, write the hashes, and compare them with earlier ones."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--only", nargs="+", choices=SHORTENED, default=list(SHORTENED))
    options = parser.parse_args()
    after = {recipe: hashes(recipe) for recipe in options.only}
    options.out.write_text(json.dumps(after, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if options.against:
        before = json.loads(options.against.read_text(encoding="utf-8"))
        sys.exit(compare({recipe: before[recipe] for recipe in after}, after))


def hashes(recipe: str) -> dict[str, str]:
    """Run a shortened recipe; return a dict from stage and file of each result to its SHA-256."""
    with tempfile.TemporaryDirectory() as folder:
        for names in RENAMED.get(recipe, ((),)):
            done = run(recipe, (*SHORTENED[recipe], *names), Path(folder) / "run")
            if done.returncode == 0:
                break
        else:
            sys.exit(f"{recipe}: {done.stderr}")
        return dict(results(Path(folder) / "run"))


def run(recipe: str, settings: tuple[str, ...], out: Path) -> subprocess.CompletedProcess[str]:
    """Run a recipe of this checkout with one thread."""
    sets = [part for setting in settings for part in ("--set", setting)]
    command = ("genkit", "run", str(ROOT / "recipes" / f"{recipe}.toml"), "--out", str(out))
    paths = (str(ROOT), str(ROOT / "plugins"), os.environ.get("PYTHONPATH", ""))
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        [sys.executable, "-m", *command, "--device", "cpu", *sets],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def results(folder: Path):
    """Yield the name and the hash of every result of a run."""
    for path in sorted(folder.glob("[0-9][0-9]-*/*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".safetensors" and not path.name.startswith("checkpoint"):
            yield name, of_tensors(load_file(path))
        elif path.name == "scores.json":
            rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
            yield name, hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def of_tensors(tensors: dict[str, torch.Tensor]) -> str:
    """Return the SHA-256 of tensors, including their names, types and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def compare(before: dict[str, Any], after: dict[str, Any]) -> int:
    """Print all differences; return 1 if there are any, else 0."""
    differences = 0
    for recipe, was in before.items():
        now = after[recipe]
        for name in sorted(was.keys() | now.keys()):
            if was.get(name) != now.get(name):
                differences += 1
                print(f"{recipe} {name}: {was.get(name)} -> {now.get(name)}")
    print(f"{sum(map(len, after.values()))} results, {differences} differ")
    return int(differences > 0)


if __name__ == "__main__":
    main()
