"""A program that does on this machine what adb does on an Android device."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

NAMES = ("SERIAL-1", "adb-13e75597-AbCdEf (2)._adb-tls-connect._tcp")
"""Devices that it knows: by a serial number, and by what mDNS makes of a second one of its kind."""

# /data/local/tmp becomes a folder of the test in whatever is asked; a script needs it quoted.
FAKE = r"""#!/bin/bash
data={data}
echo "$@" | head -1 | cut -c1-80 >>{log}
[ "$1" = -s ] || exit 9
case "$2" in {names}) ;; *) echo "adb: device '$2' not found" >&2; exit 1 ;; esac
case "$3" in
  shell) quoted=$(printf %q "$data"); eval "${{4//\/data\/local\/tmp/"$quoted"}}" ;;
  push) cp "$4" "${{5//\/data\/local\/tmp/"$data"}}" && echo "$4: 1 file pushed" ;;
  pull) cp "${{4//\/data\/local\/tmp/"$data"}}" "$5" && echo "1 file pulled" ;;
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
    names = "|".join(map(shlex.quote, NAMES))
    data, log = shlex.quote(str(folder)), shlex.quote(str(tmp_path / "log"))
    program.write_text(FAKE.format(data=data, log=log, names=names))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/local/bin:/usr/bin:/bin")
    return folder
