"""A model within a longer-lived program: replaced files, forks, copies."""

from __future__ import annotations

import copy
import ctypes
import gc
import os
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import vitc
from vitc.errors import VitcError
from vitc.runtime import sealed_library
from vitc.runtime.sealed_library import SealedLibrary


def replace(folder: Path, by: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(by, folder)


def copies() -> int:
    """Private copies that this process has open or mapped."""
    mapped = Path("/proc/self/maps").read_text().splitlines()
    inodes = {line.split()[4] for line in mapped if "libvitc_model" in line}
    links = [os.path.realpath(file) for file in Path("/proc/self/fd").iterdir()]
    return len(inodes) + sum("libvitc_model" in link for link in links)


def test_a_folder_compiled_again_is_the_new_network_when_opened_again(artefact, another, images):
    old = vitc.open(artefact.path)
    before = old(images)
    replace(artefact.path, another.path)
    new = vitc.open(artefact.path)
    assert np.array_equal(new(images), another(images))
    assert not np.array_equal(new(images), before)
    assert np.array_equal(old(images), before)


def test_what_was_opened_runs_though_the_folder_was_replaced_before_the_first_run(
    artefact, another, original, images
):
    opened = vitc.open(artefact.path)
    replace(artefact.path, another.path)
    assert np.array_equal(opened(images), original(images))
    assert np.array_equal(opened.load(2)(images), original(images))


def test_a_library_overwritten_in_place_does_not_disturb_the_model(artefact, images):
    model = vitc.open(artefact.path).load(2)
    before = model(images)
    with artefact.library.open("r+b") as file:
        file.write(b"\0" * artefact.library.stat().st_size)
        file.truncate(100)
    assert np.array_equal(model(images), before)
    with pytest.raises(VitcError, match=r"libvitc_model\.so"):
        vitc.open(artefact.path)


def test_a_runner_is_not_disturbed_by_a_library_overwritten_in_place(artefact, images, tmp_path):
    np.save(tmp_path / "x.npy", images)
    os.mkfifo(tmp_path / "y.npy")
    command = [artefact.runner, tmp_path / "x.npy", tmp_path / "y.npy", "--repeat", "1000"]
    expected = artefact(images)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while "libvitc_model" not in Path(f"/proc/{process.pid}/maps").read_text():
            assert process.poll() is None
        with artefact.library.open("r+b") as file:
            file.write(b"\0" * artefact.library.stat().st_size)
            file.truncate(100)
        (tmp_path / "read.npy").write_bytes((tmp_path / "y.npy").read_bytes())
        assert process.wait(120) == 0
    assert np.array_equal(np.load(tmp_path / "read.npy"), expected)


def test_a_library_that_is_changed_after_its_folder_was_verified_is_not_loaded(artefact):
    data = bytearray(artefact.library.read_bytes())
    data[-1] ^= 1
    artefact.library.write_bytes(data)
    with pytest.raises(VitcError, match="changed or compiled again since the artefact was opened"):
        artefact.load()


def test_a_closed_model_says_so(original, images):
    model = original.load()
    model.close()
    model.close()
    with pytest.raises(VitcError, match="was closed"):
        model(images)


def test_copies_of_the_library_go_with_their_models(artefact, another, images):
    gc.collect()
    before = copies()
    for _ in range(3):
        for folder in (artefact.path, another.path):
            opened = vitc.open(folder)
            opened(images)
            opened.load(2)(images)
    assert copies() > before
    del opened
    gc.collect()
    assert copies() == before


def without_memory_files(monkeypatch):
    monkeypatch.delattr(os, "memfd_create")


def with_memory_files_that_are_not_mapped(monkeypatch):
    real = ctypes.CDLL

    def refuse(name, *arguments):
        if str(name).startswith("/proc/self/fd/"):
            raise OSError("failed to map segment from shared object")
        return real(name, *arguments)

    monkeypatch.setattr(sealed_library.ctypes, "CDLL", refuse)


@pytest.mark.parametrize("how", [without_memory_files, with_memory_files_that_are_not_mapped])
def test_without_memory_files_a_file_without_a_name_is_mapped(
    artefact, another, original, images, tmp_path, monkeypatch, how
):
    how(monkeypatch)
    monkeypatch.setattr(sealed_library.tempfile, "tempdir", str(tmp_path))
    old = vitc.open(artefact.path)
    assert np.array_equal(old(images), original(images))
    replace(artefact.path, another.path)
    assert np.array_equal(vitc.open(artefact.path)(images), another(images))
    assert np.array_equal(old(images), original(images))
    assert not list(tmp_path.glob("vitc-library-*"))


def test_a_system_that_maps_no_copy_is_a_sentence_with_the_places(
    artefact, images, tmp_path, monkeypatch
):
    def refuse(name, *_):
        raise OSError(f"{name}: failed to map segment from shared object")

    monkeypatch.setattr(sealed_library.ctypes, "CDLL", refuse)
    monkeypatch.setattr(sealed_library.tempfile, "tempdir", str(tmp_path))
    with pytest.raises(VitcError, match="cannot be loaded") as caught:
        vitc.open(artefact.path)(images)
    assert str(tmp_path) in caught.value.hint
    assert "noexec" in caught.value.hint
    assert not list(artefact.path.glob("vitc-library-*"))


def test_a_file_that_is_no_library_is_a_sentence(tmp_path):
    (tmp_path / "x.so").write_bytes(b"no library")
    sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    with pytest.raises(VitcError, match="changed"):
        SealedLibrary(tmp_path / "x.so", sha256)
    (tmp_path / "x.so").write_bytes(b"")
    with pytest.raises(VitcError, match="cannot be loaded"):
        _ = SealedLibrary(tmp_path / "x.so", sha256).functions


FORK = """
import os, signal, sys, threading
import numpy as np, vitc
images = np.load(sys.argv[2])
model, other = vitc.open(sys.argv[1]).load(2), vitc.open(sys.argv[1]).load(2)
expected, stop = model(images), False
def work():
    while not stop:
        other(images)
worker = threading.Thread(target=work)
worker.start()
for number in range(10):
    pid = os.fork()
    if not pid:
        signal.alarm(100)
        right = all(np.array_equal(m(images), expected) for m in (model, other, model))
        os._exit(0 if right else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, number
    assert np.array_equal(model(images), expected)
stop = True
worker.join()
print("fine")
"""


def test_children_of_fork_run_the_model_while_the_parent_does(original, images, tmp_path):
    np.save(tmp_path / "x.npy", images)
    done = subprocess.run(
        [sys.executable, "-c", FORK, original.path, tmp_path / "x.npy"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.stdout == "fine\n", done.stderr


COPIES = [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]  # noqa: S301


@pytest.mark.parametrize("copied", COPIES, ids=["copy", "deepcopy", "pickle"])
@pytest.mark.parametrize("load", [lambda a: a, lambda a: a.load(2)], ids=["artefact", "model"])
def test_a_copy_opens_the_folder_again(artefact, images, copied, load):
    model = load(vitc.open(artefact.path))
    twin = copied(model)
    assert np.array_equal(twin(images), model(images))
    del model
    assert np.array_equal(twin(images), artefact(images))


@pytest.mark.parametrize("load", [lambda a: a, lambda a: a.load(2)], ids=["artefact", "model"])
def test_a_copy_of_a_folder_that_holds_something_else_by_now_is_refused(artefact, another, load):
    model = load(vitc.open(artefact.path))
    kept = pickle.dumps(model)
    replace(artefact.path, another.path)
    for copied in (lambda: copy.deepcopy(model), lambda: pickle.loads(kept)):  # noqa: S301
        with pytest.raises(VitcError, match="holds another artefact than the one that was copied"):
            copied()
    shutil.rmtree(artefact.path)
    with pytest.raises(VitcError, match="There is no folder"):
        copy.deepcopy(model)


@pytest.mark.parametrize("threads", [0, -1, 65, 100000, True, 1.0, "2", None])
def test_a_number_of_threads_that_is_none_is_refused(original, threads):
    with pytest.raises(VitcError, match="wanted a number from 1 to 64"):
        original.load(threads)


def test_models_of_one_artefact_on_many_threads_are_exact(original, images):
    expected, wrong = original(images), []

    def work():
        with original.load(2) as model:
            wrong.extend(n for n in range(20) if not np.array_equal(model(images), expected))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
