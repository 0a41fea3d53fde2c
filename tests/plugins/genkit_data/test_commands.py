"""`genkit data`, from a server of this machine."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
from typing import ClassVar

import pytest
from typer.testing import CliRunner

from genkit.errors import Code, DataError, PluginError, UsageError
from genkit.interfaces import Dataset
from genkit.plugin.manager import load_plugins
from genkit.plugin.registry import Registry
from genkit.types import RemoteFile
from genkit_data.commands import app


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def mirror(tmp_path):
    """The address of a server, and the folder that it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


@pytest.fixture
def small(mirror, monkeypatch):
    """CIFAR-10 and Fashion-MNIST, published in small files by the server."""
    url, folder = mirror
    registry = load_plugins().registry
    for name in ("cifar10", "fashion-mnist"):
        cls = registry.load(registry.find(["dataset"], name))
        files = {}
        for file in cls.archives:
            content = file.encode() * 1000
            (folder / file).write_bytes(content)
            digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
            files[file] = RemoteFile(f"{url}/{file}", len(content), digest)
        monkeypatch.setattr(cls, "archives", files)
    return mirror


def get(*arguments):
    return CliRunner().invoke(app, ["get", *map(str, arguments)])


@pytest.mark.parametrize(("name", "count"), [("cifar10", 1), ("fashion-mnist", 4)])
def test_every_file_is_fetched_once(small, tmp_path, name, count):
    _, served = small
    root = tmp_path / "data" / "deep"
    result = get(name, "--root", root)
    assert result.exit_code == 0, result.exception
    assert f'data = {{ use = "{name}", root = "{root}" }}' in result.stdout
    found = {path.name: path.read_bytes() for path in root.iterdir()}
    assert len(found) == count
    assert all(content == (served / file).read_bytes() for file, content in found.items())
    for file in found:
        (served / file).unlink()
    assert get(name, "--root", root).exit_code == 0


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_mirror(small, tmp_path, monkeypatch, slash):
    url, _ = small
    cls = load_plugins().registry.load(load_plugins().registry.find(["dataset"], "cifar10"))
    (file, remote), *_ = cls.archives.items()
    elsewhere = RemoteFile("http://127.0.0.1:9/gone", remote.size, remote.md5)
    monkeypatch.setattr(cls, "archives", {file: elsewhere})
    assert get("cifar10", "--root", tmp_path / "data", "--url", url + slash).exit_code == 0
    assert (tmp_path / "data" / file).is_file()


def test_a_mirror_must_be_on_the_web(tmp_path):
    result = get("cifar10", "--root", tmp_path / "data", "--url", "file:///tmp")
    assert isinstance(result.exception, DataError)
    assert not (tmp_path / "data").exists()


def test_a_file_that_the_server_lacks(small, tmp_path, monkeypatch):
    _, served = small
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    (served / "cifar-10-binary.tar.gz").unlink()
    result = get("cifar10", "--root", tmp_path / "data")
    assert isinstance(result.exception, DataError)
    assert " 404" in str(result.exception)
    assert list((tmp_path / "data").iterdir()) == []


def test_another_file_of_the_name_is_left_alone(small, tmp_path):
    (tmp_path / "cifar-10-binary.tar.gz").write_text("mine")
    result = get("cifar10", "--root", tmp_path)
    assert "cifar-10-binary.tar.gz: " in str(result.exception)
    assert (tmp_path / "cifar-10-binary.tar.gz").read_text() == "mine"


def test_data_that_is_published_in_no_files(tmp_path):
    result = get("digits", "--root", tmp_path)
    assert isinstance(result.exception, UsageError)
    assert result.exception.code == Code.UNKNOWN_CHOICE
    assert "cifar10 or fashion-mnist" in str(result.exception)


def test_a_plugin_that_is_broken_is_no_hindrance(tmp_path, monkeypatch):
    real = Registry.load

    def load(self, entry):
        if entry.name == "cifar10":
            raise PluginError("cannot be imported")
        return real(self, entry)

    monkeypatch.setattr(Registry, "load", load)
    found = str(get("digits", "--root", tmp_path).exception)
    assert "fashion-mnist" in found
    assert "cifar10" not in found


def test_an_unknown_name(tmp_path):
    result = get("cifar", "--root", tmp_path)
    assert result.exception.code == Code.UNKNOWN_CHOICE
    assert 'did you mean "cifar10"?' in str(result.exception)


def test_a_file_in_place_of_the_folder(small, tmp_path):
    (tmp_path / "data").touch()
    result = get("cifar10", "--root", tmp_path / "data")
    assert isinstance(result.exception, UsageError)
    assert f"got {tmp_path / 'data'}" in str(result.exception)


def test_a_stop_tells_how_to_go_on(genkit_, tmp_path, monkeypatch):
    def stop(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("genkit_data.download.requests.get", stop)
    code, printed, err = genkit_("data", "get", "cifar10", "--root", tmp_path / "data")
    assert (code, printed) == (130, "")
    assert "stopped; completed files are kept" in err


def test_a_strangers_data_set(small, tmp_path, monkeypatch):
    """What a plugin publishes in `archives` is fetched like genkit's own."""
    url, served = small
    (served / "x.bin").write_bytes(b"x")
    digest = hashlib.md5(b"x", usedforsecurity=False).hexdigest()

    class Stranger(Dataset):
        archives: ClassVar = {"x.bin": RemoteFile(f"{url}/x.bin", 1, digest)}

    registry = load_plugins().registry
    monkeypatch.setattr(type(registry), "load", lambda self, entry: Stranger)
    assert get("digits", "--root", tmp_path / "data").exit_code == 0
    assert (tmp_path / "data" / "x.bin").read_bytes() == b"x"
