from __future__ import annotations

from genkit.errors import Code, DataError
from genkit_data.folder import content_of, entries, existing, existing_folder, require_md5
from raising import raises_code


def test_relative_to_the_current_directory(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    assert existing_folder("photos").samefile(tmp_path / "photos")


def test_home_is_expanded(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert existing_folder("~/photos") == tmp_path / "photos"


def test_unknown_home():
    with raises_code(DataError, Code.NOT_FOUND, "~nobody-of-this-name/photos"):
        existing_folder("~nobody-of-this-name/photos")


def test_near_match_of_the_first_missing_part(tmp_path):
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    (tmp_path / "photo").touch()  # a file is no folder to propose
    with raises_code(DataError, Code.NOT_FOUND, "fotos", '"photos"'):
        existing_folder(str(tmp_path / "fotos" / "deep"))


def test_nothing_alike(tmp_path):
    with raises_code(DataError, Code.NOT_FOUND, "photos"):
        existing_folder(str(tmp_path / "photos"))


def test_file(tmp_path):
    (tmp_path / "photo.png").touch()
    with raises_code(DataError, Code.WRONG_KIND):
        existing_folder(str(tmp_path / "photo.png"))


def test_entries_are_sorted_without_hidden_ones(tmp_path):
    for name in ("b", "a", "C", ".hidden"):
        (tmp_path / name).touch()
    assert [path.name for path in entries(tmp_path)] == ["C", "a", "b"]


def test_folder_that_cannot_be_listed(tmp_path):
    with raises_code(DataError, Code.IO_ERROR):
        entries(tmp_path / "gone")


def test_a_file_or_a_folder(tmp_path, monkeypatch):
    (tmp_path / "images.zip").touch()
    monkeypatch.chdir(tmp_path)
    assert existing("images.zip").name == "images.zip"
    assert existing(str(tmp_path)) == tmp_path
    with raises_code(DataError, Code.NOT_FOUND, "image.zip", '"images.zip"'):
        existing("image.zip")


def test_files_that_cannot_be_read(tmp_path):
    for read in (lambda path: content_of(path, 9), lambda path: require_md5(path, "")):
        with raises_code(DataError, Code.IO_ERROR, "gone"):
            read(tmp_path / "gone")
    with raises_code(DataError, Code.IO_ERROR, "Is a directory"):
        content_of(tmp_path, 2**20)
