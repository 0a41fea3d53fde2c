"""Files from the web, from a server of this machine."""

from __future__ import annotations

import hashlib
import http.server
import shutil
import threading
from collections import namedtuple
from dataclasses import replace

import pytest

from genkit.download import download, missing, require_web
from genkit.errors import DataError
from genkit.types import RemoteFile

CONTENT = bytes(k * 7 % 251 for k in range(600_000))


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT in the way that the server's ``answers`` say, one for each request."""

    def do_GET(self):
        site = self.server.site
        asked = self.headers.get("Range")
        site.asked.append(asked)
        answer = site.answers.pop(0) if site.answers else "whole"
        if isinstance(answer, int):
            self.send_error(answer)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if asked and answer != "no ranges":
            first = start + 1 if answer == "another range" else start
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}")
        else:
            start = 0
            self.send_response(200)
        body = CONTENT[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if answer == "broken off" else body)

    def log_message(self, *args):
        pass


class Site:
    def __init__(self, url):
        self.url, self.answers, self.asked = url, [], []
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
def fetch(site, tmp_path):
    """Fetches the file; returns what it reported."""

    def fetch(**changes):
        told = []
        download(replace(site.remote, **changes), tmp_path / "a.bin", told.append, first_wait=0)
        return told

    return fetch


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_whole(site, fetch, tmp_path):
    told = fetch()
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert names(tmp_path) == ["a.bin"]
    assert told == sorted(told)
    assert told[-1] == len(CONTENT)
    assert site.asked == [None]


def test_goes_on_where_it_broke_off(site, fetch, tmp_path):
    site.answers = ["broken off"]
    fetch()
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert site.asked == [None, "bytes=300000-"]


def test_goes_on_with_an_earlier_part(site, fetch, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:12345])
    told = fetch()
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert site.asked == ["bytes=12345-"]
    assert told[0] > 12345


def test_a_whole_part_is_only_verified(site, fetch, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    assert fetch() == []
    assert names(tmp_path) == ["a.bin"]
    assert site.asked == []


def test_a_part_that_is_too_long_is_none(site, fetch, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT + b"x")
    fetch()
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert site.asked == [None]


def test_a_server_that_knows_no_ranges(site, fetch, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(b"something else")
    site.answers = ["no ranges"]
    fetch()
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert site.asked == ["bytes=14-"]


def test_a_server_that_sends_another_range(site, fetch, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:10])
    site.answers = ["another range"]
    with pytest.raises(DataError, match="another range than it was asked for"):
        fetch()
    assert names(tmp_path) == ["a.bin.part"]


def test_a_range_that_cannot_be_served_begins_anew(site, fetch, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:10])
    site.answers = [416]
    fetch()
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert site.asked == ["bytes=10-", None]


def test_a_wrong_checksum_leaves_nothing(fetch, tmp_path):
    with pytest.raises(DataError, match=r"a\.bin: what came has the MD5 .*; it was removed"):
        fetch(md5="0" * 32)
    assert names(tmp_path) == []


def test_more_than_was_published_leaves_nothing(fetch, tmp_path):
    with pytest.raises(DataError, match="is longer than the published 1,000 bytes"):
        fetch(size=1000)
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [404, 403, 410])
def test_a_refusal_is_final(site, fetch, tmp_path, code):
    site.answers = [code] * 9
    with pytest.raises(DataError, match=rf"a\.bin: the server answers {code} "):
        fetch()
    assert len(site.asked) == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [500, 503, 429])
def test_a_busy_server_is_asked_again(site, fetch, tmp_path, code):
    site.answers = [code, code]
    fetch()
    assert names(tmp_path) == ["a.bin"]
    assert len(site.asked) == 3


def test_a_busy_server_is_not_asked_for_ever(site, fetch, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:10])
    site.answers = [503] * 9
    told = r"the server answers 503 .*; the same command goes on from 10 of 600,000 bytes"
    with pytest.raises(DataError, match=told):
        fetch()
    assert len(site.asked) == 5
    assert names(tmp_path) == ["a.bin.part"]


def test_every_attempt_that_brings_something_counts(site, fetch, tmp_path):
    site.answers = ["broken off"] * 12
    fetch()
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert len(site.asked) == 13


def test_the_waits_grow(site, fetch, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr("genkit.download.time.sleep", waits.append)
    site.answers = [503] * 9
    with pytest.raises(DataError):
        download(site.remote, tmp_path / "a.bin", lambda done: None)
    assert waits == [1, 2, 4, 8]


def test_nobody_answers(fetch):
    with pytest.raises(DataError, match=r"cannot be fetched: .*refused"):
        fetch(url="http://127.0.0.1:9/a.bin")


def test_a_stop_keeps_the_part(site, tmp_path):
    def stop(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(site.remote, tmp_path / "a.bin", stop)
    assert names(tmp_path) == ["a.bin.part"]
    assert CONTENT.startswith((tmp_path / "a.bin.part").read_bytes())
    download(site.remote, tmp_path / "a.bin", lambda done: None)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_full_disk(site, tmp_path):
    def full(done):
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"a\.bin\.part: No space left on device; what was"):
        download(site.remote, tmp_path / "a.bin", full)


def test_what_is_missing(site, tmp_path):
    files = {"a.bin": site.remote, "b.bin": site.remote}
    assert missing(files, tmp_path) == files
    (tmp_path / "a.bin").write_bytes(CONTENT)
    assert missing(files, tmp_path) == {"b.bin": site.remote}
    for other in (CONTENT[:-1], CONTENT[:-1] + b"x"):
        (tmp_path / "b.bin").write_bytes(other)
        with pytest.raises(DataError, match=r"b\.bin: is not the published file; move or remove"):
            missing(files, tmp_path)


def test_too_little_room(site, tmp_path, monkeypatch):
    usage = namedtuple("usage", ["free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(len(CONTENT) - 1))
    with pytest.raises(DataError, match="has 599,999 bytes free, and 600,000 are needed"):
        missing({"a.bin": site.remote}, tmp_path)
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:1])
    assert missing({"a.bin": site.remote}, tmp_path)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://a/b", "a/b", "", "http://", "http://[::/"]
)
def test_the_web_alone(url):
    with pytest.raises(DataError, match="is no address of the web"):
        require_web(url)
    require_web("https://example.org/data")


def test_a_data_set_cannot_name_a_file_of_this_machine(fetch, tmp_path):
    (tmp_path / "secret").write_bytes(CONTENT)
    with pytest.raises(DataError, match="is no address of the web"):
        fetch(url=(tmp_path / "secret").as_uri())


def test_a_server_that_never_has_the_range(site, fetch):
    site.answers = [416] * 9
    with pytest.raises(DataError, match="cannot be fetched: its file is shorter"):
        fetch()
