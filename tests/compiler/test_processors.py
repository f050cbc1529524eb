"""Processors other than this one: their features as data, and their refusals in an emulator."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import numpy as np
import pytest

from vitc.compiler import compile_model
from vitc.errors import VitcError
from vitc.runtime import artefact as opened
from vitc.targets.table import TARGETS

_spec = importlib.util.spec_from_file_location("shared", Path(__file__).with_name("conftest.py"))
shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shared)


@pytest.mark.parametrize(
    ("target", "processor", "missing"),
    [
        ("x86-64-v2", "core2duo", "sse4_2"),
        ("x86-64-v2", "Nehalem", None),
        ("x86", "Nehalem", "avx2"),
        ("x86", "Haswell", None),
        ("x86-avx512", "Haswell", "avx512f"),
        ("x86-amx", "Haswell", "avx512f"),
    ],
)
def test_the_runner_names_the_first_feature_that_a_processor_lacks(
    build, need_emulator, tmp_path, target, processor, missing
):
    emulator = need_emulator("x86_64")
    _, path = build(shared.config(depth=1))
    artefact = compile_model(path, target, tmp_path / "out")
    np.save(tmp_path / "x.npy", shared.images_for(shared.config(), 1))

    done = subprocess.run(
        [emulator, "-cpu", processor, artefact.runner, tmp_path / "x.npy", tmp_path / "y.npy"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )

    if missing is None:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 1
        assert f"lacks the feature that the library was compiled for: {missing}\n" in done.stderr
    assert (tmp_path / "y.npy").exists() == (missing is None)


@pytest.mark.parametrize(
    ("processor", "features", "target", "missing"),
    [
        ("Cascade Lake", {*TARGETS["x86-avx512bw"].features, "avx512_vnni"}, "x86-amx",
         ["amx_int8", "amx_tile", "avx512_bitalg", "avx512_vbmi2", "avx512_vpopcntdq",
          "avx512ifma", "avx512vbmi"]),
        ("a hidden extension", set(TARGETS["x86-avx512"].features) - {"avx512ifma"}, "x86-avx512",
         ["avx512ifma"]),
        ("Zen 4", set(TARGETS["x86-avx512"].features), "x86-amx", ["amx_int8", "amx_tile"]),
        ("Westmere", set(TARGETS["x86-64-v2"].features), "x86",
         ["avx2", "bmi1", "bmi2", "fma"]),
    ],
)  # fmt: skip
def test_a_library_is_not_loaded_where_features_are_missing(
    build, tmp_path, monkeypatch, processor, features, target, missing
):
    _, path = build(shared.config(depth=1))
    artefact = compile_model(path, target, tmp_path / "out")
    monkeypatch.setattr(opened, "host_features", lambda: frozenset(features))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")

    with pytest.raises(VitcError, match=rf"missing: {', '.join(missing)}\. "):
        artefact.load()
