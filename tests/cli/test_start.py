from __future__ import annotations

import subprocess
import sys

import pytest

COMMANDS = ["new", "pretrain", "train", "probe", "export", "compile", "run", "check", "bench"]
COMMANDS += ["tune", "inspect", "package", "targets", "models", "doctor", "demo"]
HEAVY = ["torch", "tvm", "onnxruntime", "onnx", "onnx_ir", "onnxscript", "numpy", "PIL", "sklearn"]

PROBE = """
import sys
sys.argv = ["vitc", *{arguments!r}]
from vitc.cli.main import main
try:
    main()
finally:
    print("LOADED", *(name for name in {heavy!r} if name in sys.modules), file=sys.stderr)
"""


def loaded_by(*arguments: str) -> tuple[list[str], str]:
    code = PROBE.format(arguments=list(arguments), heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600
    )
    line = next(line for line in done.stderr.splitlines() if line.startswith("LOADED"))
    return line.split()[1:], done.stdout


def test_help_of_the_program_imports_no_framework_and_names_every_command() -> None:
    loaded, text = loaded_by("--help")

    assert loaded == []
    assert all(f" {command} " in text for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_imports_no_framework(command: str) -> None:
    loaded, text = loaded_by(command, "--help")

    assert loaded == []
    assert "Usage" in text


def test_the_table_of_targets_imports_no_framework() -> None:
    loaded, text = loaded_by("targets")

    assert not {"torch", "tvm", "onnxruntime", "onnx"} & set(loaded)
    assert "armv7" in text


def test_the_table_of_models_imports_no_framework() -> None:
    loaded, text = loaded_by("models")

    assert not {"torch", "tvm", "onnxruntime", "onnx"} & set(loaded)
    assert "deit-small" in text


def test_compiling_imports_no_pytorch(built, tmp_path) -> None:
    loaded, _ = loaded_by("compile", str(built.onnx), "--out", str(tmp_path / "m"))

    assert "tvm" in loaded
    assert not {"torch", "onnxscript"} & set(loaded)


@pytest.mark.parametrize("what", ["onnx", "artefact"])
def test_inspecting_what_was_exported_imports_no_compiler(built, what) -> None:
    loaded, text = loaded_by("inspect", str(getattr(built, what)))

    assert not {"torch", "tvm", "onnxscript"} & set(loaded)
    assert "fp MACs" in text


def test_pytorch_can_be_imported_after_a_tvm_that_went_without() -> None:
    code = (
        "import sys; from vitc.cli.tvm_alone import import_tvm_alone; import_tvm_alone(); "
        "assert 'tvm' in sys.modules and 'torch' not in sys.modules; "
        "import torch; print(int(torch.ones(3).sum()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600
    )

    assert done.stdout.strip() == "3"


def test_importing_vitc_imports_no_framework() -> None:
    code = f"import sys, vitc; print([n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600
    )

    assert done.stdout.strip() == "[]"


def test_the_version_is_printed() -> None:
    _, text = loaded_by("--version")

    assert text.startswith("vitc 0.")
