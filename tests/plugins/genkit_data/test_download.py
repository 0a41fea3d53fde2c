"""Files from the web, from a server of this machine."""

from __future__ import annotations

import hashlib
import http.server
import shutil
import threading
from collections import namedtuple
from dataclasses import replace

import pytest

from genkit.errors import Code, DataError
from genkit.types import RemoteFile
from genkit_data.download import download, find_missing, require_web
from raising import raises_code

CONTENT = bytes(k * 7 % 251 for k in range(600_000))


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT in the way that the server's ``answers`` say, one for each request."""

    def do_GET(self):
        site = self.server.site
        site.asked += 1
        answer = site.answers.pop(0) if site.answers else "whole"
        if isinstance(answer, int):
            self.send_error(answer)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        body = CONTENT[::-1] if answer == "other" else CONTENT
        self.wfile.write(body[: len(body) // 2] if answer == "broken off" else body)

    def log_message(self, *args):
        pass


class Site:
    def __init__(self, url):
        self.url, self.answers, self.asked = url, [], 0
        digest = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
        self.remote = RemoteFile(f"{url}/a.bin", len(CONTENT), digest)


@pytest.fixture
def site():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.site = Site(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.site
        server.shutdown()
        thread.join()


@pytest.fixture
def waits(monkeypatch):
    """The seconds between attempts, which are not waited for."""
    found = []
    monkeypatch.setattr("pooch.core.time.sleep", found.append)
    return found


@pytest.fixture
def fetch(site, tmp_path, waits):
    """Fetches the file; returns what was reported."""

    def fetch(report=None, **changes):
        told = []
        download("a.bin", replace(site.remote, **changes), tmp_path, report or told.append)
        return told

    return fetch


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_whole(site, fetch, tmp_path):
    told = fetch()
    assert told == sorted(told)
    assert told[-1] == len(CONTENT)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert names(tmp_path) == ["a.bin"]
    assert site.asked == 1


def test_others_may_read_it(fetch, tmp_path):
    fetch()
    assert (tmp_path / "a.bin").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("answer", ["broken off", "other", 500, 503, 429])
def test_an_attempt_that_fails_is_made_again(site, fetch, tmp_path, answer):
    site.answers = [answer, answer]
    fetch()
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert names(tmp_path) == ["a.bin"]
    assert site.asked == 3


def test_attempts_end(site, fetch, tmp_path, waits):
    site.answers = ["broken off"] * 9
    with raises_code(DataError, Code.DOWNLOAD, "a.bin"):
        fetch()
    assert site.asked == 4
    assert waits == [1, 2, 3]
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [404, 403, 503])
def test_a_refusal_is_told_with_its_code(site, fetch, tmp_path, code):
    site.answers = [code] * 9
    with raises_code(DataError, Code.DOWNLOAD, "a.bin", code):
        fetch()
    assert names(tmp_path) == []


def test_a_wrong_checksum_leaves_nothing(fetch, tmp_path):
    with raises_code(DataError, Code.DOWNLOAD, "a.bin", "MD5"):
        fetch(md5="0" * 32)
    assert names(tmp_path) == []


def test_nobody_answers(fetch, tmp_path):
    with raises_code(DataError, Code.DOWNLOAD):
        fetch(url="http://127.0.0.1:9/a.bin")
    assert names(tmp_path) == []


def test_a_stop_leaves_nothing_and_the_next_call_starts_anew(site, fetch, tmp_path):
    def stop(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(stop)
    assert names(tmp_path) == []
    fetch()
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_full_disk(fetch, tmp_path):
    def full(done):
        raise OSError(28, "No space left on device")

    with raises_code(DataError, Code.IO_ERROR, "a.bin", "No space left on device"):
        fetch(full)
    assert names(tmp_path) == []


def test_what_is_missing(site, tmp_path):
    files = {"a.bin": site.remote, "b.bin": site.remote}
    assert find_missing(files, tmp_path) == files
    (tmp_path / "a.bin").write_bytes(CONTENT)
    assert find_missing(files, tmp_path) == {"b.bin": site.remote}
    for other in (CONTENT[:-1], CONTENT[:-1] + b"x"):
        (tmp_path / "b.bin").write_bytes(other)
        with raises_code(DataError, Code.OCCUPIED, "b.bin"):
            find_missing(files, tmp_path)


def test_too_little_room(site, tmp_path, monkeypatch):
    usage = namedtuple("usage", ["free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(len(CONTENT) - 1))
    with raises_code(DataError, Code.IO_ERROR, "599,999", "600,000"):
        find_missing({"a.bin": site.remote}, tmp_path)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a/b", "a/b", ""])
def test_the_web_alone(url):
    with raises_code(DataError, Code.INVALID_NAME):
        require_web(url)
    require_web("https://example.org/data")


@pytest.mark.parametrize("url", ["http://", "http://[::/"])
def test_an_address_without_a_host(fetch, url):
    with raises_code(DataError, Code.DOWNLOAD):
        fetch(url=url)


def test_a_data_set_cannot_name_a_file_of_this_machine(fetch, tmp_path):
    (tmp_path / "secret").write_bytes(CONTENT)
    with raises_code(DataError, Code.INVALID_NAME):
        fetch(url=(tmp_path / "secret").as_uri())
