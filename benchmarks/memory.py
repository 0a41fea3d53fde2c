"""Measure the memory of `real-and-fake` for 50,000 real and 50,000 generated images of 32x32.

    python benchmarks/memory.py

The images are random bytes in the files of a data set and of a stage `sample`. The script prints the
increase of the peak memory of the process while the two sets are joined.
"""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from genkit.artifacts import Samples
from genkit.types import Batch
from genkit_data.npz import NPZ
from genkit_data.real_and_fake import RealAndFake

COUNT = 50_000


def peak() -> float:
    """Return the peak memory of the process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    """Join the images and print the memory."""
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images.npz"
        samples = Path(folder) / Samples.filename()
        write(images, samples)
        data = RealAndFake(real=NPZ(path=str(images), labels=False), fakes="fakes")
        data.real.load(SimpleNamespace())  # writes the cache file, which is mapped afterwards
        before = peak()
        joined = data.load(SimpleNamespace(read=lambda _, artifact: artifact.load(samples)))
        print(f"{len(joined):,} images {list(joined.data.shape[1:])} of {joined.data.dtype}")
        print(
            f"size {joined.data.nbytes / 1e6:.0f} MB, increase of the peak {peak() - before:.0f} MB"
        )


def write(images: Path, samples: Path) -> None:
    """Write both files in a separate process, whose memory is not counted."""
    import multiprocessing

    process = multiprocessing.get_context("spawn").Process(target=_write, args=(images, samples))
    process.start()
    process.join()


def _write(images: Path, samples: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 3, 32, 32), np.uint8)
    np.savez(images, images=pixels)
    Samples(Batch(torch.from_numpy(pixels)), nfe=1).save(samples)


if __name__ == "__main__":
    main()
