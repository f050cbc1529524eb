"""A folder gets its name whole; what is no artefact is never replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitc.errors import VitcError
from vitc.outputs import check_folder, claim_folder, folder
from vitc.outputs.hidden import hidden_name
from vitc.outputs.rename import exchange, rename_new

MARKER = "manifest.json"


def make(path: Path, text: str, *, force: bool = False) -> None:
    with claim_folder(path, marker=MARKER, force=force) as output, output.scratch() as scratch:
        made = scratch / "made"
        (made / "sub").mkdir(parents=True)
        (made / MARKER).write_text(text)
        output.publish(made)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    make(tmp_path / "x" / "y" / "out", "new")
    assert names(tmp_path / "x" / "y") == ["out"]
    assert (tmp_path / "x" / "y" / "out" / MARKER).read_text() == "new"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    make(tmp_path / "out", "new")
    assert (tmp_path / "out" / MARKER).read_text() == "new"


@pytest.mark.parametrize("atomic", [True, False])
def test_an_artefact_is_kept_unless_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, atomic: bool
) -> None:
    if not atomic:
        monkeypatch.setattr(folder, "exchange", lambda *_: False)
    make(tmp_path / "out", "old")
    with pytest.raises(VitcError, match="--force"):
        make(tmp_path / "out", "new")
    assert (tmp_path / "out" / MARKER).read_text() == "old"
    make(tmp_path / "out", "new", force=True)
    assert (tmp_path / "out" / MARKER).read_text() == "new"
    assert names(tmp_path) == ["out"]


def test_what_somebody_put_into_an_artefact_is_not_lost(tmp_path: Path) -> None:
    make(tmp_path / "out", "old")
    (tmp_path / "out" / "notes.txt").write_text("mine")

    def claim(*known: str) -> None:
        with claim_folder(tmp_path / "out", marker=MARKER, force=True, parts=lambda _: known):
            pass

    with pytest.raises(VitcError, match=r"also holds notes\.txt and 1 more, which vitc did not"):
        claim(MARKER)
    with pytest.raises(VitcError, match=r"also holds notes\.txt, which"):
        claim(MARKER, "sub")
    with pytest.raises(VitcError, match=r"also holds notes\.txt, which"):
        check_folder(tmp_path / "out", marker=MARKER, force=True, parts=lambda _: (MARKER, "sub"))
    claim(MARKER, "sub", "notes.txt")
    assert names(tmp_path / "out") == [MARKER, "notes.txt", "sub"]


@pytest.mark.parametrize("force", [True, False])
def test_a_foreign_folder_or_file_is_never_replaced(tmp_path: Path, force: bool) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("cat")
    (tmp_path / "file").write_text("text")
    with pytest.raises(VitcError, match="not an artefact"):
        check_folder(tmp_path / "photos", marker=MARKER, force=force)
    with pytest.raises(VitcError, match="no folder"):
        check_folder(tmp_path / "file", marker=MARKER, force=force)
    assert names(tmp_path) == ["file", "photos"]


def test_a_folder_that_appears_during_the_work_is_kept(tmp_path: Path) -> None:
    with (
        claim_folder(tmp_path / "out", marker=MARKER) as output,
        output.scratch() as scratch,
    ):
        (scratch / "made").mkdir()
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / MARKER).write_text("somebody's")
        with pytest.raises(VitcError, match="exists already"):
            output.publish(scratch / "made")
    assert (tmp_path / "out" / MARKER).read_text() == "somebody's"
    assert names(tmp_path) == ["out"]


def test_a_link_stays_and_the_folder_that_it_names_is_replaced(tmp_path: Path) -> None:
    make(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("new")
    make(tmp_path / "link", "new", force=True)
    make(tmp_path / "dangling", "newer")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / MARKER).read_text() == "new"
    assert (tmp_path / "new" / MARKER).read_text() == "newer"


def test_a_run_killed_while_it_replaced_a_folder_in_two_steps_loses_neither(
    tmp_path: Path,
) -> None:
    make(tmp_path / "out", "old")
    left = hidden_name(tmp_path / "out")
    left.mkdir()
    (tmp_path / "out").rename(left / "old")
    with pytest.raises(VitcError, match="--force"):
        check_folder(tmp_path / "out", marker=MARKER)
    assert (tmp_path / "out" / MARKER).read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_names_change_in_one_step_and_new_ones_replace_nothing(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert exchange(tmp_path / "a", tmp_path / "b")
    assert [(tmp_path / n / m).exists() for n, m in ("ab", "ba", "aa")] == [True, True, False]
    with pytest.raises(FileExistsError):
        rename_new(tmp_path / "a", tmp_path / "b")
    assert names(tmp_path) == ["a", "b"]
