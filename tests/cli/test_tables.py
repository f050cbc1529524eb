"""What the tables of bench, inspect and targets say, in few columns."""

from __future__ import annotations

import pytest

from vitc import api
from vitc.cli.durations import unit_of
from vitc.devices import LocalDevice, QemuDevice
from vitc.devices import qemu as qemu_module
from vitc.errors import VitcError
from vitc.models import save
from vitc.targets import TARGETS


def test_a_time_without_digits_in_ms_is_shown_in_us_with_all_that_stand_beside_it() -> None:
    unit = unit_of([0.0081, 0.139])

    assert unit.text(0.0081) == "8.10 us"
    assert unit.text(0.139) == "139.00 us"
    assert unit_of([3.2, 0.1]).text(3.2) == "3.200 ms"
    assert unit_of([0.0, 2.0]).name == "ms"


def test_bench_of_a_small_network_has_digits_and_one_meaning_of_load(vitc, built) -> None:
    outcome = vitc("bench", built.artefact, "--runs", 30, "--baseline", "none", "--profile")

    heading, times = outcome.out.splitlines()[:2]
    assert heading.split()[0] in {"us", "ms"}
    numbers = [float(word) for word in times.split()[-4:]]
    assert all(number > 0 for number in numbers)
    if heading.split()[0] == "ms":
        assert min(numbers) >= 0.05
    assert "opened in " in outcome.out
    assert "load " not in outcome.out.replace("load average", "")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The widest names and numbers of all presets: two-digit blocks, and labels."""
    model = api.new("deit-base")
    model.labels = tuple(f"class [{i}]" for i in range(1000))
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    save(model, path)
    return path


def test_inspect_fits_80_columns_and_keeps_every_name(vitc, base, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    outcome = vitc("inspect", base)

    lines = outcome.out.splitlines()
    assert max(len(line) for line in lines) <= 80
    names = [layer["name"] for layer in vitc("inspect", base, "--json", "-").json["layers"]]
    starts = {line.split()[0] for line in lines if line.split()}
    assert [name for name in names if name not in starts] == []


def test_inspect_shows_preprocessing_labels_and_the_bits_of_a_weight(vitc, base) -> None:
    shown = vitc("inspect", base).out
    report = vitc("inspect", base, "--json", "-").json

    assert "centre crop of 224 px, mean 0.485 0.456 0.406" in shown
    assert "class [0], class [1]" in shown
    assert "and 988 more" in shown
    assert [line for line in shown.splitlines() if line.split()[:3] == ["weights", "1", "bit"]]
    assert report["preprocessing"]["resize"] == 256
    assert report["labels"][999] == "class [999]"


def test_inspect_of_an_artefact_names_the_kernels_in_80_columns(vitc, built, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    outcome = vitc("inspect", built.artefact)

    assert max(len(line) for line in outcome.out.splitlines()) <= 80
    assert "vitc_threshold_columns_0" in outcome.out


def test_targets_say_that_an_emulator_is_missing(vitc, monkeypatch) -> None:
    monkeypatch.setattr(qemu_module, "find_emulator", lambda _: None)
    without = vitc("targets").out
    monkeypatch.setattr(qemu_module, "find_emulator", lambda name: f"/usr/bin/{name}")
    here = vitc("targets").out

    assert "needs qemu-arm" in without
    assert "qemu-arm" in here
    assert "needs qemu" not in here


class Beyond:
    """An artefact for a processor that is not here."""

    def __init__(self, target: str) -> None:
        self.target = TARGETS[target]

    def missing_features(self) -> list[str]:
        return list(self.target.features)


@pytest.mark.parametrize(
    ("target", "emulator", "wanted", "unwanted"),
    [
        ("x86-avx512", "/usr/bin/qemu-x86_64", "a machine that has avx512f", "--device qemu"),
        ("rpi4", "/usr/bin/qemu-aarch64", "Add `--device qemu`", "Install"),
        ("rpi4", None, "Install qemu-aarch64", "Add"),
    ],
)
def test_a_hint_leads_to_something_that_works(
    monkeypatch, target, emulator, wanted, unwanted
) -> None:
    monkeypatch.setattr(qemu_module, "find_emulator", lambda _: emulator)

    with pytest.raises(VitcError) as caught:
        LocalDevice().supports(Beyond(target))

    assert wanted in caught.value.hint
    assert unwanted not in caught.value.hint


def test_what_qemu_does_not_emulate_is_said_even_where_it_is_not_installed(monkeypatch) -> None:
    monkeypatch.setattr(qemu_module, "find_emulator", lambda _: None)

    with pytest.raises(VitcError, match="qemu-x86_64 does not emulate avx512f"):
        QemuDevice().supports(Beyond("x86-avx512"))
