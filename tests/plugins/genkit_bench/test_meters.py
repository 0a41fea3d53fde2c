from __future__ import annotations

from pathlib import Path

import pytest
import torch

from genkit import machine
from genkit.machine import resident
from genkit_bench import meters
from genkit_bench.meters import PeakMemory

CPU = torch.device("cpu")
LINUX = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells")


@LINUX
def test_the_peak_inside_the_block_is_seen():
    held = torch.ones(2**24)  # 64 MiB before it count for nothing
    with PeakMemory(CPU) as peak:
        torch.ones(2**25)  # 128 MiB, given back at once
    assert len(held) == 2**24
    assert 120 * 2**20 < peak.bytes < 160 * 2**20


@LINUX
def test_an_earlier_peak_is_forgotten():
    torch.ones(2**25)
    with PeakMemory(CPU) as peak:
        torch.ones(2**20)
    assert peak.bytes < 40 * 2**20


@LINUX
def test_the_process_holds_at_most_its_peak():
    assert 0 < resident("VmRSS") <= resident("VmHWM")


def test_nothing_is_told_where_the_system_tells_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "_STATUS", tmp_path / "status")
    monkeypatch.setattr(meters, "_RESET", tmp_path / "no folder" / "clear_refs")
    assert resident("VmRSS") is None
    with PeakMemory(CPU) as peak:
        pass
    assert peak.bytes is None


def test_the_memory_of_another_device_is_not_that_of_the_process():
    with PeakMemory(torch.device("mps")) as peak:
        pass
    assert peak.bytes is None


def test_on_a_gpu_torchs_allocator_tells(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", calls.append)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 350)
    with PeakMemory(torch.device("cuda:1")) as peak:
        pass
    assert (peak.bytes, calls) == (250, [torch.device("cuda:1")])
