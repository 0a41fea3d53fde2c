from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
from importlib.metadata import version

import pytest

import genkit.plugin.manager
import genkit.run.engine
from genkit.cli import main
from genkit.errors import DivergedError, InterruptedRun
from genkit.plugin.manager import Plugins, PluginStatus
from genkit.plugin.registry import Owner, Registry

pytestmark = pytest.mark.usefixtures("coarse_pictures")

RECIPE = """# Two moons.
name = "moons"
data = { use = "moons" }

[[stage]]
id = "denoiser"
use = "train"
images = 64
batch_size = 32
network = { use = "mlp" }
objective = { use = "denoising" }

[[stage]]
id = "samples"
use = "sample"
denoiser = "denoiser"
"""

HEAVY = "torch numpy scipy ot torchmetrics matplotlib PIL"


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "moons.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def executed(monkeypatch):
    """The calls of ``execute``, which does nothing."""
    calls = []

    def execute(recipe, plugins, folder, device, progress, world, redo):
        calls.append((recipe, folder, device, redo))
        progress.note("working")
        (folder / "02-scores").mkdir(parents=True, exist_ok=True)
        rows = [{"nfe": 13, "guidance_nfe": 0, "frechet": 0.5}]
        return {
            "stages": {"scores": {"rows": rows, "facts": {}}},
            "pictures": ["02-samples/samples.png"],
        }

    monkeypatch.setattr(genkit.run.engine, "execute", execute)
    return calls


def fails(monkeypatch, error):
    def execute(*arguments):
        raise error

    monkeypatch.setattr(genkit.run.engine, "execute", execute)


def test_where_an_error_was_raised_is_printed_on_request(genkit_, recipe, monkeypatch):
    fails(monkeypatch, DivergedError("the loss is nan"))
    _, _, err = genkit_("run", recipe)
    assert "Traceback" not in err
    for arguments in (("--traceback", "run", recipe), ("run", recipe, "--traceback")):
        code, _, err = genkit_(*arguments)
        assert code == 3
        assert "Traceback (most recent call last)" in err
        assert err.endswith("Error: the loss is nan\n")
    assert "--traceback" in genkit_("--help")[1]


# --- starting -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["list-plugins"], ["run"], ["run", "broken.toml"]]
)
def test_what_needs_no_numbers_imports_no_library_of_numbers(tmp_path, arguments):
    (tmp_path / "broken.toml").write_text('name = "x\n')
    code = (
        "import sys\nfrom genkit.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit: pass\n"
        f"print('HEAVY', sorted(set(sys.modules) & set({HEAVY.split()!r})))"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.endswith("HEAVY []\n")


def test_the_module_runs_as_a_program():
    command = [sys.executable, "-m", "genkit", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"genkit {version('genkit-diffusion')}\n"


def test_a_stop_while_the_command_line_is_imported_is_no_traceback():
    code = (
        "import runpy, sys\n"
        "class Stop:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Stop())\n"
        "runpy.run_module('genkit', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (InterruptedRun.exit_code, False)


def test_a_reader_that_goes_away_is_no_error():
    command = [sys.executable, "-m", "genkit", "list-plugins", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""


def test_help_names_every_command(genkit_):
    code, out, _ = genkit_("--help")
    assert code == 0
    assert all(command in out for command in ("run", "validate", "list-plugins", "show"))
    assert genkit_("-h")[1] == out


# --- run ------------------------------------------------------------------------------------


def test_a_run_reports_on_stdout_and_goes_on_on_stderr(genkit_, recipe, executed):
    code, out, err = genkit_("run", recipe)
    assert code == 0
    assert "Scores of scores" in out
    assert "0.5" in out
    assert "runs/moons/02-samples/samples.png" in out
    assert out.endswith("Everything is in runs/moons\n")
    assert str(recipe) in err
    assert err.endswith("working\n")


def test_options_of_a_run(genkit_, recipe, executed, tmp_path):
    code, _, _ = genkit_(
        "run", recipe, "--out", tmp_path / "here", "--device", "cpu",
        "--set", "denoiser.images=96", "--set", "seed=3", "--redo", "samples", "--redo", "denoiser",
    )  # fmt: skip
    ((loaded, folder, device, redo),) = executed
    assert (code, folder, device, redo) == (0, tmp_path / "here", "cpu", ["samples", "denoiser"])
    assert (loaded.seed, loaded.stages["denoiser"].images) == (3, 96)
    assert loaded.overrides == ("denoiser.images=96", "seed=3")


def test_a_run_goes_to_runs_unless_told_otherwise(genkit_, recipe, executed):
    genkit_("run", recipe)
    assert executed[0][1].as_posix() == "runs/moons"
    assert executed[0][2] is None


def test_a_dry_run_shows_the_plan_and_writes_nothing(genkit_, recipe, executed, tmp_path):
    code, out, _ = genkit_("run", recipe, "--dry-run", "--set", "denoiser.images=96")
    assert code == 0
    assert "moons, 2 stages, seed 0, device cpu, in runs/moons" in out
    lines = [line.split() for line in out.splitlines()]
    assert ["1", "denoiser", "train", "new", "runs/moons/01-denoiser"] in lines
    assert ["2", "samples", "sample", "new", "runs/moons/02-samples"] in lines
    assert ["*", "denoiser.images", "=", "96", "required"] in lines
    assert not any("denoiser.micro_batch" in line for line in lines)  # as by default
    assert any(line[:2] == ["denoiser", "1,690,754"] for line in lines)
    assert [line[0] for line in lines if line][-3:] == ["Memory:", "Disk:", "Time:"]
    assert executed == []
    assert [path.name for path in tmp_path.iterdir()] == ["moons.toml"]


def test_a_dry_run_tells_what_runs_again(genkit_, recipe, executed):
    _, out, _ = genkit_("run", recipe, "--dry-run", "--redo", "samples")
    states = {
        line.split()[1]: line.split()[3] for line in out.splitlines() if "runs/moons/" in line
    }
    assert states == {"denoiser": "new", "samples": "redo"}
    code, _, err = genkit_("run", recipe, "--dry-run", "--redo", "sample")
    assert (code, 'did you mean "samples"?' in err) == (2, True)


@pytest.mark.parametrize("arguments", [[], ["nonesuch"]])
def test_without_a_known_recipe_the_shipped_ones_are_listed(
    genkit_, monkeypatch, tmp_path, arguments
):
    shipped = tmp_path / "tiny.toml"
    shipped.write_text("# Learns in a second.\nname = 1\n")
    silent = tmp_path / "silent.toml"
    silent.write_text("name = 1\n")
    found = {"tiny": shipped, "cifar10/silent": silent}
    monkeypatch.setattr("genkit.recipe.source.shipped_recipes", lambda: found)
    code, out, err = genkit_("run", *arguments)
    assert (code, out) == (2, "")
    assert "  tiny            Learns in a second.\n  cifar10/silent\n" in err


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:-1", "CPU", "cpu:0", "cuda:99999"])
def test_an_unknown_device_is_refused(genkit_, recipe, executed, device):
    code, out, err = genkit_("run", recipe, "--device", device)
    assert (code, out, executed) == (2, "", [])
    assert err == f'Error: no device is called "{device}"; write auto, cpu, cuda, cuda:N or mps\n'


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:3", "mps"])
def test_known_devices_are_handed_on(genkit_, recipe, executed, device):
    assert genkit_("run", recipe, "--device", device)[0] == 0
    assert executed[0][2] == device


def test_all_mistakes_are_told_without_a_traceback(genkit_, recipe, tmp_path):
    recipe.write_text(RECIPE.replace('"mlp"', '"mpl"').replace("images = 64", 'images = "64"'))
    before = sorted(tmp_path.iterdir())
    code, out, err = genkit_("run", recipe, "--set", "sed=1")
    assert (code, out) == (2, "")
    assert "\nError: 3 mistakes in the recipe:\n" in err
    assert f"{recipe}:8: denoiser.images" in err
    assert 'did you mean "mlp"?' in err
    assert "--set sed=1" in err
    assert "Traceback" not in err
    assert sorted(tmp_path.iterdir()) == before


def test_an_error_exits_with_its_code(genkit_, recipe, monkeypatch):
    fails(monkeypatch, DivergedError("the loss is nan"))
    code, out, err = genkit_("run", recipe)
    assert (code, out) == (3, "")
    assert err.endswith("\nError: the loss is nan\n")


def test_an_interrupted_run_says_how_to_go_on(genkit_, recipe, monkeypatch):
    fails(monkeypatch, InterruptedRun("stopped in stage denoiser at 64 images; it is saved"))
    code, out, err = genkit_("run", recipe)
    assert (code, out) == (130, "")
    assert "it is saved. Run the same command to resume.\n" in err
    assert "Error" not in err


def test_an_interrupt_outside_of_a_stage_exits_with_130(genkit_, recipe, monkeypatch):
    fails(monkeypatch, KeyboardInterrupt())
    code, out, err = genkit_("run", recipe)
    assert (code, out) == (130, "")
    assert "Traceback" not in err


def test_an_unexpected_error_keeps_its_traceback(recipe, monkeypatch):
    fails(monkeypatch, ZeroDivisionError("a fault of genkit"))
    with pytest.raises(ZeroDivisionError, match="a fault of genkit"):
        main(["run", str(recipe)])


# --- validate -------------------------------------------------------------------------------


def test_validate_shows_the_stages(genkit_, recipe, tmp_path):
    code, out, _ = genkit_("validate", recipe, "--set", "seed=5")
    assert code == 0
    assert out.startswith("OK: moons, 2 stages, seed 5\n  --set seed=5\n")
    assert [line.split()[:3] for line in out.splitlines()[-2:]] == [
        ["1", "denoiser", "train"],
        ["2", "samples", "sample"],
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["moons.toml"]


def test_validate_refuses_what_run_refuses(genkit_, recipe):
    code, out, err = genkit_("validate", recipe, "--set", "seed=-5")
    assert (code, out) == (2, "")
    assert "seed" in err


def test_validate_refuses_a_device_that_run_would_refuse(genkit_, recipe):
    for command in ("run", "validate"):
        code, _, err = genkit_(command, recipe, "--set", 'device="cuda:999"')
        assert (code, "cuda:999" in err) == (2, True)


@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        ("", (), []),
        (
            'sead = 1\nname = "a"\n[[stage]]\n',
            (),
            [
                ("unknown-key", "bad.toml", 1, None, None, "sead", 'did you mean "seed"?'),
                ("missing-key", "bad.toml", 3, None, None, "stage.0.id", 'write id = "..."'),
                ("missing-key", "bad.toml", 3, None, None, "stage.0.use", None),
            ],
        ),
        (
            RECIPE.replace('"mlp"', '"mpl"'),
            (),
            [
                (
                    *("unknown-component", "bad.toml", 10, None, None, "denoiser.network.use"),
                    'did you mean "mlp"?',
                )
            ],
        ),
        ("a = b\n", (), [("syntax", "bad.toml", 1, 5, None, "a", None)]),
        (
            "",
            ("seed=-1", "sed=1"),
            [
                ("out-of-range", None, None, None, "seed=-1", "seed", None),
                ("unknown-key", None, None, None, "sed=1", None, 'did you mean "seed"?'),
            ],
        ),
        ("", ('device="cuda:999"',), [("no-device", None, None, None, None, None, None)]),
        (None, (), [("not-found", None, None, None, None, None, None)]),
    ],
)
def test_validate_prints_json(genkit_, recipe, tmp_path, text, settings, expected):
    if text is not None:
        (tmp_path / "bad.toml").write_text(text or recipe.read_text())
    arguments = [part for setting in settings for part in ("--set", setting)]
    code, out, err = genkit_("validate", "bad.toml", *arguments, "--json")
    assert (code, err) == (2 if expected else 0, "")
    places = ("code", "file", "line", "column", "override", "key")
    found = json.loads(out)
    assert [tuple(one[name] for name in places) for one in found] == [e[:6] for e in expected]
    assert all(one["message"] and one.keys() == {*places, "message", "suggestion"} for one in found)
    for one, (*_, suggestion) in zip(found, expected, strict=True):
        assert suggestion is None or one["suggestion"] == suggestion
    assert genkit_("validate", "bad.toml", *arguments)[0] == code


@pytest.mark.parametrize(("name", "kind"), [((), "usage"), (("recipe-of-nobody",), "not-found")])
def test_the_list_of_recipes_is_no_part_of_a_message(genkit_, name, kind):
    code, out, _ = genkit_("validate", *name, "--json")
    (found,) = json.loads(out)
    assert (code, found["code"]) == (2, kind)
    assert "; " not in found["message"]
    assert "\n" not in found["message"] + found["suggestion"]
    assert "Shipped recipes" in genkit_("validate", *name)[2]


def test_a_name_that_is_nearly_right_is_answered_without_the_list(genkit_):
    code, _, err = genkit_("validate", "edm_aott")
    assert (code, len(err.splitlines())) == (2, 1)
    assert '"edm_aot"' in err


# --- plugins --------------------------------------------------------------------------------


def test_plugins_are_listed_as_json(genkit_):
    code, out, _ = genkit_("list-plugins", "--json")
    listed = {plugin["plugin"]: plugin for plugin in json.loads(out)["plugins"]}
    assert code == 0
    assert listed["genkit"]["distribution"] == "genkit-diffusion"
    assert listed["genkit"]["version"] == version("genkit-diffusion")
    assert {"kind": "coupler", "name": "random", "target": "genkit.independent:Random"} in listed[
        "genkit"
    ]["components"]


def test_a_kind_filters_the_list(genkit_):
    _, out, _ = genkit_("list-plugins", "--kind", "coupler")
    assert "random" in out
    assert "train" not in out


@pytest.mark.parametrize("command", [["list-plugins"], ["show", "random"]])
def test_an_unknown_kind_is_refused(genkit_, command):
    code, out, err = genkit_(*command, "--kind", "couplr")
    assert (code, out) == (2, "")
    assert 'did you mean "coupler"?' in err


def test_a_failed_plugin_is_shown_with_its_reason(genkit_, monkeypatch):
    failed = PluginStatus(Owner("bad", "stranger", "0.1"), reason="ImportError: no torchvision")
    plugins = Plugins(Registry(), (), (failed,))
    monkeypatch.setattr(genkit.plugin.manager, "load_plugins", lambda: plugins)
    code, out, _ = genkit_("list-plugins")
    assert code == 0
    assert out.splitlines()[-1].split(maxsplit=4) == [
        "bad", "stranger", "0.1", "failed", "ImportError: no torchvision",
    ]  # fmt: skip


def test_show_tells_of_every_component_of_a_name(genkit_):
    code, out, _ = genkit_("show", "edm")
    assert code == 0
    assert "preconditioner edm\n" in out
    assert "schedule edm\n" in out
    assert "sigma_data" in out
    assert "rho" in out
    _, only, _ = genkit_("show", "edm", "--kind", "schedule")
    assert "preconditioner edm" not in only
    assert "rho" in only


def test_show_suggests_a_name(genkit_):
    assert genkit_("show", "randm") == (
        2,
        "",
        'Error: no component or recipe is called "randm"; did you mean "random"?\n',
    )
    assert "see genkit list-plugins" in genkit_("show", "xyzzy")[2]


def test_a_dry_run_refuses_a_device_that_is_not_there(genkit_, recipe):
    code, _, err = genkit_("run", recipe, "--dry-run", "--device", "cuda:99")
    assert code == 2
    assert 'no device "cuda:99"' in err


@pytest.mark.parametrize(("asked", "found"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_the_user_says_otherwise(genkit_, monkeypatch, asked, found):
    monkeypatch.setenv("OMP_WAIT_POLICY", "")  # so that it is restored after the test
    if asked is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    else:
        monkeypatch.setenv("OMP_WAIT_POLICY", asked)
    genkit_("--version")
    assert os.environ["OMP_WAIT_POLICY"] == found


def test_a_caller_of_main_is_not_ended_with_a_thread_that_still_works(recipe):
    """As in tests, or in a notebook: the process is the caller's."""
    going = threading.Event()
    thread = threading.Thread(target=going.wait)
    thread.start()
    try:
        with pytest.raises(SystemExit) as ended:
            main(["run", "nowhere.toml"])
    finally:
        going.set()
        thread.join()
    assert ended.value.code == 2


def test_a_name_that_is_too_long_is_no_traceback(genkit_):
    code, _, err = genkit_("runs", "x" * 300)
    assert (code, "File name too long" in err) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "code"), [("runs absent", 2), ("list-plugins", 0)])
def test_closed_standard_streams_are_no_traceback(tmp_path, arguments, code):
    command = f"{shlex.quote(sys.executable)} -m genkit {arguments} >&- <&- 2>err"
    assert subprocess.run(["sh", "-c", command], cwd=tmp_path, check=False).returncode == code
    assert "Traceback" not in (tmp_path / "err").read_text()
