from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import genkit_bench.couplers
from genkit.cli import main
from genkit_bench.couplers import Row

pytestmark = pytest.mark.slow

FAST = ("--sizes", "8,16", "--shape", "3,4,4", "--repeats", "1")
HEAVY = "torch numpy scipy ot torchmetrics matplotlib"


@pytest.fixture
def bench(capsys):
    """Call ``genkit bench couplers``; returns exit code, stdout and stderr."""

    def call(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(["bench", "couplers", *arguments])
        out, err = capsys.readouterr()
        return stopped.value.code or 0, out, err

    return call


def test_every_coupler_is_measured_beside_plain_scipy(bench):
    code, out, err = bench(*FAST)
    assert (code, err) == (0, "")
    for name in ("plain scipy", "random", "hungarian", "partitioned", "pot-exact", "pot-sinkhorn"):
        assert sum(line.startswith(f"{name} ") for line in out.splitlines()) >= 2, name
    assert "solve: " in out


def test_json(bench):
    code, out, _ = bench(*FAST, "--json", "--coupler", "random", "--seed", "3", "--device", "cpu")
    found = json.loads(out)
    assert (code, found["seed"], found["stopped"]) == (0, 3, False)
    assert found["data"] == {"name": "synthetic", "items": 2048, "shape": [3, 4, 4], "classes": 10}
    assert [(row["coupler"], row["pool"]) for row in found["rows"]] == [
        ("plain scipy", 8), ("random", 8), ("plain scipy", 16), ("random", 16),
    ]  # fmt: skip
    assert found["rows"][1]["images_per_second"] > 0
    assert found["environment"]["hardware"]


def test_a_data_set_and_tables_of_couplers(bench):
    table = '{ use = "partitioned", inner = { use = "pot-exact" } }'
    code, out, _ = bench(
        "--sizes", "12", "--repeats", "1", "--data", '{ use = "moons", items = 20 }',
        "--coupler", table, "--coupler", "random", "--json",
    )  # fmt: skip
    found = json.loads(out)
    assert code == 0
    assert found["data"]["shape"] == [2]
    names = [row["coupler"] for row in found["rows"]]
    assert names == ["plain scipy", "partitioned(inner=pot-exact)", "random"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--sizes", "0"], 'got "0"'),
        (["--sizes", "-8"], 'got "-8"'),
        (["--sizes", "many"], 'got "many"'),
        (["--shape", "32,32"], 'got "32,32"'),
        (["--coupler", "hungarien"], 'did you mean "hungarian"'),
        (["--coupler", "{ use ="], "must be a name or a TOML table"),
        (["--coupler", '{ use = "hungarian", cost = "x" }'], "hungarian.cost"),
        (["--device", "gpu"], 'no device is called "gpu"'),
        (["--device", "cuda:99"], 'this machine has no device "cuda:99"'),
        (["--data", "digit"], 'did you mean "digits"'),
        (["--data", '{ use = "image-folder", root = "no folder here" }'], "no folder here"),
        (["--data", "digits", "--classes", "3"], "got --data"),
        (["--limit", "0"], "got 0;"),
        (["--limit", "nan"], "got nan;"),
        (["--repeats", "0"], "--repeats"),
        (["--classes", "none"], "--classes"),
        (["--sizes", "999999999"], "choose smaller pools"),
    ],
)
def test_bad_input_is_told_in_a_sentence(bench, arguments, told):
    code, out, err = bench(*arguments)
    assert (code, out) == (2, "")
    assert told in err
    assert "Traceback" not in err


def test_an_interrupt_shows_what_was_finished(bench, monkeypatch):
    def measure(candidates, pools, sizes, limits, tell):
        tell("working")
        yield Row(8, "fast", "euclidean", 0.1, 0.2, (0.2,), images_per_second=40.0)
        raise KeyboardInterrupt

    monkeypatch.setattr(genkit_bench.couplers, "measure_couplers", measure)
    code, out, err = bench(*FAST)
    assert code == 130
    assert "fast" in out
    assert "Stopped" in err
    assert bench(*FAST, "--json")[0] == 130


def test_nothing_finished_leaves_no_empty_table(bench, monkeypatch):
    def measure(*arguments):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(genkit_bench.couplers, "measure_couplers", measure)
    code, out, _ = bench(*FAST)
    assert (code, out) == (130, "")


@pytest.mark.parametrize(
    "arguments", [["bench", "couplers", "--help"], ["bench", "couplers", "--sizes", "x"]]
)
def test_help_and_mistakes_import_no_library_of_numbers(arguments):
    code = (
        "import sys\nfrom genkit.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit: pass\n"
        f"print('HEAVY', sorted(set(sys.modules) & set({HEAVY.split()!r})))"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("HEAVY []\n")


def test_bench_alone_shows_its_commands(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    assert "couplers" in capsys.readouterr().out


GUIDE = Path(__file__).parents[3] / "docs" / "how-to" / "choose-a-coupler.md"
SHOWN = re.findall(r"^\$ genkit bench couplers ?(.*)$", GUIDE.read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("options", SHOWN)
def test_commands_of_the_guide_are_accepted(bench, monkeypatch, tmp_path, options):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(genkit_bench.couplers, "measure_couplers", lambda *arguments: iter([]))
    for name in ("cats", "dogs"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "photos" / name / "0001.png")
    # The machine that tests the page need not have the GPU that it speaks of.
    arguments = ["cpu" if part == "cuda" else part for part in shlex.split(options)]
    assert bench(*arguments)[0] == 0
