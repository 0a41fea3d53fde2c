"""Trackers see what a run records, and nothing that they do reaches the run."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest

import genkit
from genkit.artifacts.record import read_rows
from genkit.errors import Code, InterruptedRun, RecipeError
from genkit.interfaces import TrackedRun
from genkit.plugin.manager import load_plugins
from genkit.plugin.registry import Owner, Registration
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import Source
from genkit.run import tracking
from genkit.run.engine import fingerprints
from genkit.run.tracking import Relay

pytestmark = pytest.mark.slow

MODULE = """
import errno
import sys
import threading
import time
from dataclasses import dataclass

from genkit.interfaces import BoundTracker, Tracker
from genkit.settings import setting

SEEN = []
RELEASED = threading.Event()


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def fail(how):
    if how == "raises":
        raise ValueError("not\\ntoday")
    if how == "has no text":
        raise Unspeakable
    if how == "exits":
        sys.exit(3)
    if how == "interrupts":
        raise KeyboardInterrupt
    if how == "fills its disk":
        with open("/dev/full", "w") as file:
            file.write("x")
    if how == "hangs":
        RELEASED.wait()
    if how == "prints":
        print("a line of a tracker")


@dataclass(frozen=True, kw_only=True)
class Odd(Tracker):
    at: str = setting("", doc="method that fails")
    how: str = setting("", doc="way in which it fails")

    def open(self, run):
        SEEN.append(("open", run))
        self.fail_at("open")
        return Bound(self)

    def fail_at(self, method):
        if method == self.at:
            fail(self.how)


@dataclass(frozen=True, kw_only=True)
class Other(Odd):
    pass


class Bound(BoundTracker):
    def __init__(self, settings):
        self.settings = settings

    def resume(self, stage, rows):
        SEEN.append(("resume", stage, rows))
        self.settings.fail_at("resume")

    def row(self, stage, row):
        SEEN.append(("row", stage, dict(row)))
        row.clear()  # a copy, so that no result can change
        self.settings.fail_at("row")

    def scores(self, stage, scores):
        SEEN.append(("scores", stage, scores.rows[0].copy()))
        scores.rows[0].clear()
        self.settings.fail_at("scores")

    def picture(self, stage, name, png):
        SEEN.append(("picture", stage, name, png))
        self.settings.fail_at("picture")

    def close(self):
        SEEN.append(("close", type(self.settings).__name__))
        self.settings.fail_at("close")
"""
METHODS = ("open", "resume", "row", "scores", "picture", "close")
WAYS = ("raises", "has no text", "exits", "interrupts", "fills its disk", "hangs")
NAMED = 'tracker "odd" of plugin odd (genkit-odd 0.3)'


@pytest.fixture
def odd(tiny, tmp_path, monkeypatch):
    """Return the module of third-party trackers `odd` and `other`, which ``tiny`` can use."""
    name = f"odd_trackers_{tmp_path.name}"  # a module that no other test has imported
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    plugins = load_plugins()
    registration = Registration(Owner("odd", "genkit-odd", "0.3"))
    registration.add("tracker", "odd", f"{name}:Odd")
    registration.add("tracker", "other", f"{name}:Other")
    plugins.registry.accept(registration)
    tiny.plugins = plugins
    module = importlib.import_module(name)
    yield module
    module.RELEASED.set()
    for thread in threading.enumerate():  # no thread stays for the tests after this one
        if thread.name == tracking.THREAD:
            thread.join(10)
            assert not thread.is_alive()


def with_odd(text, at="", how=""):
    """Return a recipe with the tracker `odd`, which fails at a method in a way."""
    head, rest = text.split("\n", 1)
    return f'{head}\ntrackers = [{{ use = "odd", at = "{at}", how = "{how}" }}]\n{rest}'


def warnings_of(caplog):
    """Return what a user is told, by the main thread."""
    records = [record for record in caplog.records if record.name == "genkit"]
    assert {record.threadName for record in records} <= {"MainThread"}
    return [record.getMessage() for record in records]


def kinds(odd, stage):
    return [entry[0] for entry in odd.SEEN if entry[1] == stage]


# --- what a tracker is passed ---------------------------------------------------------------


def test_a_tracker_is_passed_all_that_stages_record(tiny, odd):
    _, results = tiny.run(with_odd(tiny.sweep))
    run = odd.SEEN[0][1]
    assert (run.name, run.folder) == ("tiny", tiny.folder / "trackers" / "odd")
    assert run.recipe["stage"][0]["optimizer"]["use"] == "adam"
    rows = [entry[2] for entry in odd.SEEN if entry[:2] == ("row", "denoiser")]
    assert rows == read_rows(tiny.folder / "01-denoiser" / "metrics.jsonl")
    assert kinds(odd, "denoiser")[0] == "resume"
    pictures = {entry[1:3]: entry[3] for entry in odd.SEEN if entry[0] == "picture"}
    assert pictures["denoiser", "loss"] == tiny.bytes_of("loss.png")
    assert pictures["samples", "samples"] == tiny.bytes_of("samples.png")
    (scores,) = [entry[2] for entry in odd.SEEN if entry[:2] == ("scores", "sweep")]
    assert scores == results["stages"]["sweep"]["rows"][0]
    assert odd.SEEN[-1] == ("close", "Odd")


def test_a_tracker_that_joins_a_resumed_run_is_passed_the_rows_that_stay(tiny, odd):
    def stop(done, total):
        if done == 128:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(InterruptedRun):
        tiny.run(tiny.train, progress=tiny.recorder(stop))
    before = tiny.metrics()
    tiny.run(with_odd(tiny.train))
    (stay,) = [entry[2] for entry in odd.SEEN if entry[0] == "resume"]
    later = [entry[2] for entry in odd.SEEN if entry[0] == "row"]
    assert stay
    assert stay == before[: len(stay)]
    assert [*stay, *later] == tiny.metrics()


def test_a_tracker_is_part_of_no_fingerprint_and_a_finished_run_opens_none(tiny, odd):
    tiny.run(tiny.sample)
    noted, _ = tiny.run(with_odd(tiny.sample))
    assert (noted.ran, noted.skipped) == ([], ["denoiser", "samples"])
    assert odd.SEEN == []
    recipes = [tiny.load(text) for text in (tiny.sample, with_odd(tiny.sample))]
    one, other = (fingerprints(recipe, tiny.plugins.registry) for recipe in recipes)
    assert one == other


# --- what a tracker does wrong --------------------------------------------------------------


@pytest.fixture(scope="module")
def _folder(tmp_path_factory):
    return tmp_path_factory.mktemp("without") / "run"


@pytest.fixture
def without(_folder, tiny):
    """The folder of a run without trackers, made once."""
    if not _folder.exists():
        tiny.run(tiny.sweep, folder=_folder)
    return _folder


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("at", METHODS)
def test_a_tracker_that_fails_changes_nothing(tiny, odd, caplog, monkeypatch, without, at, how):
    monkeypatch.setattr(tracking, "CLOSING_SECONDS", 0.2)
    tiny.run(with_odd(tiny.sweep if at == "scores" else tiny.train, at, how))
    (warning,) = warnings_of(caplog)
    assert warning.startswith(NAMED)
    assert "the run continues without it" in warning
    assert "\n" not in warning
    names = ["denoiser.safetensors", "loss.png"]
    names += ["samples.safetensors", "scores.json"] if at == "scores" else []
    for name in names:
        assert tiny.bytes_of(name) == tiny.bytes_of(name, without)


def test_a_warning_tells_what_was_raised(tiny, odd, caplog):
    tiny.run(with_odd(tiny.train, "row", "fills its disk"))
    (warning,) = warnings_of(caplog)
    assert "raised OSError: [Errno 28] No space left on device" in warning


def test_an_error_of_the_run_still_closes_its_trackers(tiny, odd):
    def stop(done, total):
        raise RuntimeError("of the run")

    with pytest.raises(RuntimeError, match="of the run"):
        tiny.run(with_odd(tiny.train), progress=tiny.recorder(stop))
    assert odd.SEEN[-1] == ("close", "Odd")


def test_one_that_hangs_takes_nothing_from_the_others(tiny, odd, caplog, monkeypatch):
    monkeypatch.setattr(tracking, "CLOSING_SECONDS", 0.2)
    text = with_odd(tiny.train, "close", "hangs").replace("}]", '}, { use = "other" }]')
    tiny.run(text)
    assert ("close", "Other") in odd.SEEN
    (warning,) = warnings_of(caplog)
    assert "did not finish" in warning
    assert tracking.unfinished()


@pytest.fixture
def relay(odd, tmp_path):
    """A relay to a tracker that hangs in `open`, and the warnings that it gave."""
    warnings = []
    tracker = odd.Odd(at="open", how="hangs")
    relay = Relay("odd", tracker, TrackedRun("run", tmp_path, {}), warnings.append)
    yield relay, warnings
    odd.RELEASED.set()
    relay.finish()


def test_a_call_that_does_not_return_is_seen_while_the_run_continues(relay, monkeypatch):
    relay, warnings = relay
    relay.row("denoiser", {"loss": 1.0})
    assert warnings == []
    monkeypatch.setattr(tracking, "CALL_SECONDS", 0.0)
    for _ in range(3):
        relay.row("denoiser", {"loss": 1.0})
    assert warnings == ["odd has not returned for 0 s; the run continues without it"]


def test_what_waits_is_limited_in_number(odd, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "QUEUED", 3)
    warnings = []
    tracker = odd.Odd(at="open", how="hangs")
    relay = Relay("odd", tracker, TrackedRun("run", tmp_path, {}), warnings.append)
    for _ in range(5):
        relay.row("denoiser", {"loss": 1.0})
    assert warnings == ["odd is 3 calls behind; the run continues without it"]


def test_what_waits_is_limited_in_bytes_and_then_freed(relay, monkeypatch):
    relay, warnings = relay
    monkeypatch.setattr(tracking, "QUEUED_BYTES", 2**20)
    pictures = [Picture(2**19) for _ in range(4)]
    alive = weakref.WeakSet(pictures)
    while pictures:
        relay.picture("denoiser", "loss", pictures.pop())
    assert warnings == ["odd is 1 MiB of pictures behind; the run continues without it"]
    assert len(alive) == 0


def test_pictures_that_were_taken_do_not_count(odd, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "QUEUED_BYTES", 2**20)
    warnings = []
    relay = Relay("odd", odd.Odd(), TrackedRun("run", tmp_path, {}), warnings.append)
    for count in range(1, 6):
        relay.picture("denoiser", "loss", bytes(2**19))
        while kinds(odd, "denoiser").count("picture") < count:
            time.sleep(0.001)
    relay.finish()
    relay.wait(time.monotonic() + 10)
    assert warnings == []
    assert odd.SEEN[-1] == ("close", "Odd")


class Picture:
    """What has a length as bytes have, and of which one can see whether it is still held."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length


# --- the recipe, --track and Python ---------------------------------------------------------


def problems_of(tiny, text, *trackers):
    with pytest.raises(RecipeError) as caught:
        load_recipe(Source.parse(text), tiny.plugins, (), trackers)
    return [(m.problem.code, m.key) for m in caught.value.mistakes], str(caught.value)


def test_trackers_join_those_of_the_recipe(tiny, odd):
    source = Source.parse(with_odd(tiny.train, how="prints"))
    for other in ({"use": "other", "how": "prints"}, '{ use = "other", how = "prints" }'):
        recipe = load_recipe(source, tiny.plugins, (), ["csv", other])
        names = [tiny.plugins.registry.name_of(tracker) for tracker in recipe.trackers]
        assert names == ["odd", "csv", "other"]
        assert recipe.trackers[2].how == "prints"
    assert source.table["trackers"] == [{"use": "odd", "at": "", "how": "prints"}]


def test_an_unknown_tracker_has_a_near_match(tiny, odd):
    found, text = problems_of(tiny, tiny.train, "tensorbord")
    assert found == [(Code.UNKNOWN_COMPONENT, "trackers.0.use")]
    assert '--track tensorbord: trackers.0.use: no tracker is called "tensorbord"' in text
    assert 'did you mean "tensorboard"?' in text


@pytest.mark.parametrize("trackers", [["odd"], ["csv", "csv"], [{"use": "odd", "how": "prints"}]])
def test_the_same_tracker_twice_is_a_mistake(tiny, odd, trackers):
    found, text = problems_of(tiny, with_odd(tiny.train), *trackers)
    assert found == [(Code.DUPLICATE, f"trackers.{len(trackers)}")]
    assert "--track" in text


def test_trackers_that_are_no_list_are_reported_where_they_stand(tiny):
    found, _ = problems_of(tiny, 'trackers = "csv"\n' + tiny.train, "csv")
    assert found == [(Code.WRONG_TYPE, "trackers")]


def test_trackers_from_python_and_from_the_command_line(tiny, tmp_path, genkit_):
    (tmp_path / "tiny.toml").write_text(tiny.train)
    genkit.run_recipe(tmp_path / "tiny.toml", out=tmp_path / "one", trackers=["csv"])
    options = ("--out", tmp_path / "two", "--track", "csv")
    code, _, err = genkit_("run", tmp_path / "tiny.toml", *options)
    assert code == 0, err
    for run in ("one", "two"):
        assert (tmp_path / run / "trackers" / "csv" / "metrics.csv").is_file()


# --- the process ----------------------------------------------------------------------------


def test_the_command_ends_while_a_tracker_hangs(tiny, tmp_path):
    """As a user meets them: trackers of another distribution hang, exit and fill a disk."""
    site = tmp_path / "site"
    info = site / "genkit_odd-0.3.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: genkit-odd\nVersion: 0.3\n")
    (info / "entry_points.txt").write_text("[genkit.plugins]\nodd = odd_trackers\n")
    names = {"sleeper": "hangs", "exiter": "exits", "filler": "fills its disk", "printer": "prints"}
    classes = "".join(
        f"\n@dataclass(frozen=True, kw_only=True)\nclass {name.title()}(Odd):\n"
        f'    at: str = setting("row", doc="")\n    how: str = setting("{how}", doc="")\n'
        for name, how in names.items()
    )
    adds = "".join(
        f'    registry.add("tracker", "{name}", "odd_trackers:{name.title()}")\n' for name in names
    )
    hook = "\nfrom genkit.plugin import hookimpl\n\n@hookimpl\ndef genkit_register(registry):\n"
    (site / "odd_trackers.py").write_text(MODULE + classes + hook + adds)
    (tmp_path / "tiny.toml").write_text(tiny.sample)
    options = [part for name in names for part in ("--track", name)]
    done = subprocess.run(
        [sys.executable, "-m", "genkit", "run", "tiny.toml", "--device", "cpu", *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if line.startswith("Warning: ")]
    assert len(warnings) == 3, done.stderr
    for name in ("sleeper", "exiter", "filler"):
        (warning,) = [line for line in warnings if f'tracker "{name}"' in line]
        assert "plugin odd (genkit-odd 0.3)" in warning
    assert "Traceback" not in done.stderr
    assert (tmp_path / "runs/tiny/02-samples/samples.safetensors").is_file()
