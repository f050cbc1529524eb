"""What exists is kept unless forced; what is no regular file is written through."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vitc.errors import VitcError
from vitc.outputs import check_file, claim_file, replace_file, write_file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A device of our own that is always full: the driver of /dev/full under another name."""
    path = tmp_path / "full"
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7))
        with path.open("rb"):
            pass
    except PermissionError:
        pytest.skip("devices cannot be made here")
    return path


def test_a_new_file_is_written_alone_with_the_mode_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "a", "ä\n")
    finally:
        os.umask(before)
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa4\n"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert names(tmp_path) == ["a"]


def test_a_library_that_puts_a_file_of_its_own_there_changes_no_mode(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with claim_file(tmp_path / "a") as output, output.aside() as part:
            (tmp_path / "own").touch(0o600)
            (tmp_path / "own").replace(part)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(VitcError, match=r"a exists already.*--force"):
        write_file(path, "new")
    assert path.read_text() == "old"
    write_file(path, "new", force=True)
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a"]


def test_a_claim_writes_its_own_file_again_and_again(tmp_path: Path) -> None:
    with claim_file(tmp_path / "a") as output:
        for text in ("1", "2", "3"):
            output.write(text)
            assert (tmp_path / "a").read_text() == text


def test_a_file_that_appears_during_the_work_is_kept(tmp_path: Path) -> None:
    with claim_file(tmp_path / "a") as output:
        (tmp_path / "a").write_text("somebody's")
        with pytest.raises(VitcError, match="exists already"):
            output.write("mine")
    assert (tmp_path / "a").read_text() == "somebody's"
    assert names(tmp_path) == ["a"]


def test_a_device_that_appears_during_the_work_is_kept_even_if_forced(tmp_path: Path) -> None:
    with claim_file(tmp_path / "a", force=True) as output:
        os.mkfifo(tmp_path / "a")
        with pytest.raises(VitcError, match="exists already"):
            output.write("mine")
    assert (tmp_path / "a").is_fifo()


def test_work_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")

    def work() -> None:
        with claim_file(tmp_path / "a", force=True) as output, output.aside() as part:
            part.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("chain", [1, 3])
def test_a_link_stays_and_what_it_finally_names_is_replaced(tmp_path: Path, chain: int) -> None:
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "a"
    target.write_text("old")
    link = target
    for number in range(chain):
        new = tmp_path / f"link{number}"
        new.symlink_to(os.path.relpath(link, tmp_path))
        link = new
    with pytest.raises(VitcError, match=f"link{chain - 1} exists already"):
        write_file(link, "new")
    write_file(link, "new", force=True)
    assert link.is_symlink()
    assert not target.is_symlink()
    assert target.read_text() == "new"
    assert names(tmp_path / "real") == ["a"]


def test_a_link_that_leads_nowhere_yet_makes_its_target(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    write_file(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_a_link_into_a_missing_folder_names_that_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("none/target")
    with pytest.raises(VitcError, match=r"there is no folder .*none"):
        check_file(tmp_path / "link")


def test_links_that_go_round_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(VitcError, match="cannot be written"):
        check_file(tmp_path / "a")


def test_a_folder_that_is_a_link_and_dots_are_followed_as_the_system_does(tmp_path: Path) -> None:
    (tmp_path / "x" / "y").mkdir(parents=True)
    (tmp_path / "link").symlink_to("x/y")
    write_file(tmp_path / "link" / ".." / "a", "new")
    assert (tmp_path / "x" / "a").read_text() == "new"


@pytest.mark.parametrize("aside", [False, True])
def test_a_pipe_is_written_through_and_waits_for_its_reader(tmp_path: Path, aside: bool) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    data = os.urandom(200_000)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    with claim_file(pipe) as output:
        reader.start()
        if aside:
            with output.aside() as part:
                part.write_bytes(data)
        else:
            output.write(data)
    reader.join(60)
    assert got == [data]
    assert pipe.is_fifo()
    assert names(tmp_path) == ["pipe"]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("aside", [False, True])
def test_a_full_device_is_an_error_and_stays_a_device(full: Path, force: bool, aside: bool) -> None:
    with claim_file(full, force=force) as output:
        if aside:
            with pytest.raises(VitcError, match=os.strerror(errno.ENOSPC)), output.aside() as part:
                part.write_bytes(bytes(10))
        else:
            with pytest.raises(VitcError, match=os.strerror(errno.ENOSPC)):
                output.write(bytes(10))
    assert stat.S_ISCHR(full.lstat().st_mode)


def test_a_link_to_a_full_device_is_an_error_and_both_stay(full: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(full)
    with pytest.raises(VitcError, match="link cannot be written"):
        write_file(tmp_path / "link", bytes(10), force=True)
    assert (tmp_path / "link").is_symlink()
    assert stat.S_ISCHR(full.lstat().st_mode)


PROGRAM = """
import sys
from vitc.outputs import write_file
print("before")
write_file(sys.argv[1], "written\\n")
print("after")
"""


def run_writer(name: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, str(name)]
    return subprocess.run(command, text=True, check=False, timeout=600, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("name", ["/proc/self/fd/1", "/dev/fd/1", "link"])
def test_standard_output_by_name_is_written_in_its_place(tmp_path: Path, name: str) -> None:
    (tmp_path / "link").symlink_to("/proc/self/fd/1")
    done = run_writer(name, cwd=tmp_path, stdout=subprocess.PIPE)
    assert done.stdout == "before\nwritten\nafter\n"
    assert names(tmp_path) == ["link"]


def test_standard_output_that_is_a_file_is_written_in_its_place(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        log.write("first\n")
        log.flush()
        assert run_writer("/proc/self/fd/1", stdout=log).returncode == 0
        log.write("last\n")
    assert (tmp_path / "log").read_text() == "first\nbefore\nwritten\nafter\nlast\n"
    assert names(tmp_path) == ["log"]


def test_a_command_of_the_shell_gets_what_is_written(tmp_path: Path) -> None:
    command = ["bash", "-c", 'exec "$0" -c "$1" >(cat > got; echo done > end)', sys.executable]
    subprocess.run([*command, PROGRAM], cwd=tmp_path, check=True, timeout=600)
    for _ in range(600):
        if (tmp_path / "end").exists():
            break
        threading.Event().wait(0.1)
    assert (tmp_path / "got").read_text() == "written\n"


def test_a_descriptor_that_is_open_for_reading_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with (tmp_path / "a").open() as opened:
        with pytest.raises(VitcError, match="reading only"):
            check_file(f"/proc/self/fd/{opened.fileno()}")
        with pytest.raises(VitcError, match="cannot be written"):
            check_file("/proc/self/fd/987")


@pytest.mark.parametrize("name", ["", ".", "..", "/", "folder", "folder/"])
def test_a_folder_is_no_file_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VitcError, match="it is a folder"):
        check_file(name, force=True)


def test_a_missing_folder_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(VitcError, match=r"there is no folder .*mkdir -p"):
        check_file(tmp_path / "no folder" / "a")


def test_a_folder_that_may_not_be_written_to_is_an_error_before_the_work(tmp_path: Path) -> None:
    # Root may write anywhere but below /proc, where nothing can be made.
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    place = Path("/proc/self/a") if os.geteuid() == 0 else folder / "a"
    with pytest.raises(VitcError, match="cannot be written"):
        check_file(place)


def test_a_current_folder_that_is_gone_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(VitcError, match="a cannot be written"):
        check_file("a")


def test_the_longest_names_are_written_and_longer_ones_are_an_error(tmp_path: Path) -> None:
    write_file(tmp_path / ("ä" * 127), "new")
    assert names(tmp_path) == ["ä" * 127]
    with pytest.raises(VitcError, match=r"cannot be written.*shorter"):
        check_file(tmp_path / ("ä" * 128))


def test_a_name_that_is_no_text_is_written(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xfe")
    write_file(tmp_path / name, "new")
    assert os.listdir(os.fsencode(tmp_path)) == [b"\xff\xfe"]  # noqa: PTH208 - names as bytes


def test_a_cache_file_is_replaced_by_whoever_writes_last(tmp_path: Path) -> None:
    replace_file(tmp_path / "a", "1")
    replace_file(tmp_path / "a", "2")
    assert (tmp_path / "a").read_text() == "2"
    assert names(tmp_path) == ["a"]
