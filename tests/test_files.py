import os
import stat
import sys
from pathlib import Path

import pytest

from openlepton.errors import OutputError
from openlepton.files import write_atomic

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")


def test_a_file_is_written_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a 图.bin"
    write_atomic(path, b"first, and longer")
    write_atomic(str(path), b"second")
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


@posix
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_has_the_mode_that_the_umask_says(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        write_atomic(tmp_path / "no" / "a.bin", b"x")
    assert str(caught.value) == f"{tmp_path / 'no' / 'a.bin'}: cannot be written: there is no folder {tmp_path / 'no'}"


def test_a_folder_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OutputError, match="a: cannot be written: "):
        write_atomic(tmp_path / "a", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").is_dir()


@posix
def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    import resource  # POSIX only

    path = tmp_path / "a"
    path.write_bytes(b"before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # as a full disk would, the write fails half-way
    try:
        with pytest.raises(OutputError, match="a: cannot be written: "):
            write_atomic(path, bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@posix
def test_a_folder_that_may_not_be_written_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "shut"
    folder.mkdir()
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):
        pytest.skip("permissions do not bind this user")
    with pytest.raises(OutputError, match="a: cannot be written: "):
        write_atomic(folder / "a", b"x")
    assert list(folder.iterdir()) == []


def test_an_interruption_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"before")
    with pytest.raises(TypeError):
        write_atomic(path, "text")  # type: ignore[arg-type]
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
