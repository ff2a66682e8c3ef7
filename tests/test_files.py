import os
import stat
import sys

import pytest

from reeltune.errors import FileError
from reeltune.files import expand, is_file, open_regular, read_bytes, write_atomic

posix = pytest.mark.skipif(sys.platform == "win32", reason="named pipes and permissions of POSIX systems")


def test_reading_is_bounded(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_bytes(path, 5) == b"12345"
    with pytest.raises(FileError, match="more than 4 bytes"):
        read_bytes(path, 4)


@posix
def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("pipe", "loop", "absent", ".", "nul\0"):
        with pytest.raises(FileError):
            read_bytes(tmp_path / name, 10)
        assert not is_file(tmp_path / name)
    with pytest.raises(FileError):
        read_bytes(type(tmp_path)("/dev/zero"), 10)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [item.name for item in path.parent.iterdir()] == ["a.json"]
    with pytest.raises(FileError, match="can't be written"):
        write_atomic(path / "below", b"three")
    assert path.read_bytes() == b"two"


@posix
def test_permissions_are_kept_or_set(tmp_path):
    path = tmp_path / "a.json"
    write_atomic(path, b"one", mode=0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    write_atomic(path, b"two")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_home_that_does_not_exist_is_left_as_written():
    assert str(expand("~nobody-of-this-name/x")) == "~nobody-of-this-name/x"


@posix
def test_only_regular_files_are_opened(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    with open_regular(tmp_path / "a") as file:
        assert file.read() == b"12345"
    os.mkfifo(tmp_path / "pipe")
    for name, message in ((".", "is a folder"), ("pipe", "not a regular file"), ("absent", "doesn't exist")):
        with pytest.raises(FileError, match=message):
            open_regular(tmp_path / name)
