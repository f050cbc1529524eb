"""A program that does on this machine what adb does on an Android device."""

from __future__ import annotations

from pathlib import Path

import pytest

# /data/local/tmp becomes a folder of the test in whatever is asked.
FAKE = r"""#!/bin/bash
echo "$@" | head -1 | cut -c1-80 >>{log}
[ "$1" = -s ] || exit 9
[ "$2" = SERIAL-1 ] || {{ echo "adb: device '$2' not found" >&2; exit 1; }}
case "$3" in
  shell) eval "${{4//\/data\/local\/tmp/{data}}}" ;;
  push) cp "$4" "${{5//\/data\/local\/tmp/{data}}}" && echo "$4: 1 file pushed" ;;
  pull) cp "${{4//\/data\/local\/tmp/{data}}}" "$5" && echo "1 file pulled" ;;
  *) exit 9 ;;
esac
"""


@pytest.fixture
def adb_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The device's folder, with the fake in PATH."""
    folder, programs = tmp_path / "data", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    program = programs / "adb"
    program.write_text(FAKE.format(data=str(folder).replace("/", r"\/"), log=tmp_path / "log"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/local/bin:/usr/bin:/bin")
    return folder
