"""Compare the time of 3x3 Winograd convolutions with torch's convolutions, forward and backward.

    python benchmarks/winograd.py [--rounds 12] [--batch-size 8]

The two implementations alternate on the same images. Ratios of CPU seconds are computed within a round.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time

import torch
from torch import nn

from genkit.random import generator
from genkit_edm.unet.winograd import Conv3x3


def main() -> None:
    """Measure and print a line for each image size."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.machine()}, torch {torch.__version__}, one thread")
    for channels, size in ((256, 32), (256, 64), (512, 32)):
        shape = (options.batch_size, channels, size, size)
        x = torch.randn(shape, generator=generator(0, "x")).to(memory_format=torch.channels_last)
        ours = Conv3x3(channels, channels).to(memory_format=torch.channels_last)
        plain = nn.Conv2d(channels, channels, 3, padding=1)
        plain.load_state_dict(ours.state_dict())
        plain = plain.to(memory_format=torch.channels_last)
        ratios = [seconds(plain, x) / seconds(ours, x) for _ in range(options.rounds + 1)][1:]
        row = {
            "channels": channels,
            "pixels": f"{size}x{size}",
            "torch_over_winograd": round(statistics.median(ratios), 3),
            "quartiles": [round(q, 3) for q in statistics.quantiles(ratios, n=4)],
        }
        print(json.dumps(row), flush=True)


def seconds(layer: nn.Module, x: torch.Tensor) -> float:
    """Return the CPU seconds of one forward and backward pass."""
    images = x.detach().requires_grad_(True)
    start = time.process_time()
    layer(images).square().mean().backward()
    return time.process_time() - start


if __name__ == "__main__":
    main()
