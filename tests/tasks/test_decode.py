"""Boxes in C: those of Python, box by box, on every processor; and programs that ask for them."""

from __future__ import annotations

import ctypes
import itertools
import json
import platform
import struct
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image

from tests.absent import need_gcc
from tests.tasks.networks import compiled, exported
from vitc import see
from vitc.compiler.link import run_zig
from vitc.onnx_files import load_onnx
from vitc.runtime import Artefact
from vitc.runtime.detection import DecodeOptions, Detections, decode
from vitc.targets import find

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
OK, ARGUMENT = 0, 1
SIZE = (64, 96)
CASES = 180
TARGETS = ["native", "arm", "armv7"]


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("detector with a space"), "detection", size=SIZE)[1]


@pytest.fixture(scope="module")
def artefacts(onnx: Path) -> dict[str, Artefact]:
    return {target: compiled(onnx, target) for target in TARGETS}


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Image.Image:
    random = np.random.default_rng(5)
    few = Image.fromarray(random.integers(0, 256, (9, 13, 3), dtype=np.uint8))
    return few.resize((211, 157), Image.Resampling.BICUBIC)


def program(folder: Path, source: Path, artefact: Artefact, emulator: Any) -> list[str]:
    """A static program with the library of an artefact in it, and what runs it."""
    machine = find(artefact.target.name)
    strict = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread"]
    library = str(artefact.path / "libvitc_model.a")
    out = f"{source.stem}-{artefact.target.name}"
    run_zig(
        ["-target", machine.runner, *strict, f"-I{artefact.path}", str(source), library, "-o", out],
        folder,
    )
    native = platform.machine() in machine.machine
    return [*([] if native else [emulator(machine.emulator)]), str(folder / out)]


def run(*command: object) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return done.stdout


# --- maps to boxes --------------------------------------------------------------------------------


def case(seed: int) -> tuple[dict[str, np.ndarray], list[int], tuple[int, int], DecodeOptions]:
    """Maps, strides, size and options: odd sizes, equal scores, boxes beyond the image.

    In every third case scores are of few values and sides whole; in every fifth some values are no
    finite numbers, and boxes turned inside out; in another fifth a pair of boxes overlaps by what
    is allowed, to the last bit.
    """
    random = np.random.default_rng(seed)
    classes = int(random.choice([1, 2, 5, 91]))
    strides = [4, 8, 16][: int(random.integers(1, 4))]
    size = tuple(int(side) for side in random.integers(9, 90, 2))
    few = np.linspace(0, 1, 4, dtype=np.float32)
    maps = {}
    for stride in strides:
        rows, columns = (-(-side // stride) for side in size)
        ties = seed % 3 == 0
        for branch, channels in (("classes", classes), ("centreness", 1)):
            shape = (rows, columns, channels)
            drawn = random.choice(few, shape) if ties else random.random(shape, np.float32)
            maps[f"{branch}_{stride}"] = drawn.astype(np.float32)
        sides = random.exponential(2 * stride, (rows, columns, 4))
        maps[f"boxes_{stride}"] = (np.rint(sides) if ties else sides).astype(np.float32)
        if seed % 5 == 1:
            for name in (f"classes_{stride}", f"boxes_{stride}"):
                strange = random.choice([np.nan, np.inf, -np.inf, -3.5, -0.0], maps[name].shape)
                chosen = random.random(maps[name].shape) < 0.1
                maps[name] = np.where(chosen, strange, maps[name]).astype(np.float32)
    options = DecodeOptions(
        score=float(random.choice([0.0, 0.05, 0.6, 1.0])),
        overlap=float(random.choice([0.0, 0.3, 0.6, 1.0])),
        candidates=int(random.choice([1, 7, 300, 5000])),
        most=int(random.choice([1, 5, 100])),
    )
    if seed % 5 == 2:
        options = replace(options, score=0.05, candidates=300, most=100)
        every = decode(maps, strides, size, replace(options, overlap=1.0))
        options = replace(options, overlap=first_overlap(every, suppressed=seed % 2 == 0))
    return maps, strides, size, options


def first_overlap(found: Detections, *, suppressed: bool) -> float:
    """The largest overlap that still suppresses the second of two boxes, or the next one above it.

    They are the first ones of a class that have much in common.
    """
    for one, other in itertools.combinations(range(len(found)), 2):
        a, b = found.boxes[one], found.boxes[other]
        sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
        common = np.float32(sides[0] * sides[1])
        areas = [np.float32((box[2] - box[0]) * (box[3] - box[1])) for box in (a, b)]
        union = (areas[0] + areas[1]) - common
        share = common / union
        if found.classes[one] != found.classes[other] or sides.min() <= 0 or not 0.3 < share < 0.9:
            continue
        while common > share * union:
            share = np.nextafter(share, np.float32(1))
        while not common > share * union:
            above, share = share, np.nextafter(share, np.float32(0))
        return float(share if suppressed else above)
    return 0.5


def written(seed: int, room: int) -> bytes:
    maps, strides, (height, width), options = case(seed)
    classes = maps[f"classes_{strides[0]}"].shape[2]
    head = (len(strides), classes, height, width, options.candidates, options.most, room)
    parts = [struct.pack("=7i2f", *head, options.score, options.overlap)]
    for stride in strides:
        own = [maps[f"{branch}_{stride}"] for branch in ("classes", "boxes", "centreness")]
        parts.append(struct.pack("=3i", stride, *own[0].shape[:2]))
        parts += [values.tobytes() for values in own]
    return b"".join(parts)


def lines(found: Detections, room: int) -> list[str]:
    told = zip(found.classes, found.scores, found.boxes, strict=True)
    boxes = [[int(own), *(float(v) for v in (score, *box))] for own, score, box in told]
    return [str(len(found)), *(str(each) for each in boxes[:room])]


@pytest.mark.parametrize("target", TARGETS)
def test_boxes_of_random_maps_are_those_of_python_on_any_processor(
    artefacts: dict[str, Artefact], tmp_path: Path, need_emulator: Any, target: str
) -> None:
    rooms = [(seed, [0, 3, 100][seed % 3]) for seed in range(CASES)]
    (tmp_path / "cases").write_bytes(
        struct.pack("=i", len(rooms)) + b"".join(written(*each) for each in rooms)
    )

    command = program(tmp_path, HERE / "decode.c", artefacts[target], need_emulator)
    said = run(*command, tmp_path / "cases").splitlines()

    found = []
    for line in said:
        label, *numbers = line.split()
        exact = [int(label), *(float.fromhex(number) for number in numbers)]
        found.append(str(exact) if numbers else label)
    wanted = [line for seed, room in rooms for line in lines(decode(*case(seed)), room)]
    assert found == wanted
    assert sum(len(decode(*case(seed))) > room for seed, room in rooms) > CASES // 6


class Level(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("stride", "rows", "columns")),
        *((name, ctypes.c_void_p) for name in ("classes", "boxes", "centreness")),
    )


class Options(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("score", ctypes.c_float),
        ("overlap", ctypes.c_float),
        ("candidates", ctypes.c_int32),
        ("most", ctypes.c_int32),
    )


@pytest.mark.parametrize(
    "change",
    [
        {"score": -0.1}, {"score": 1.5}, {"score": float("nan")}, {"overlap": 2.0}, {"size": 3},
        {"candidates": 0}, {"most": 0}, {"number": 0}, {"number": 17}, {"classes": 0},
        {"height": 0}, {"width": -1}, {"room": -1}, {"stride": 0}, {"rows": 0}, {"boxes": None},
    ],
)  # fmt: skip
def test_what_cannot_be_decoded_is_an_argument_error(
    artefacts: dict[str, Artefact], change: dict[str, Any]
) -> None:
    functions = ctypes.CDLL(str(artefacts["native"].library))
    values = np.zeros(99, np.float32)
    asked = {"number": 1, "classes": 2, "height": 8, "width": 8, "room": 0} | change

    def decoded(given: dict[str, Any], level: Level, options: Options) -> int:
        sizes = [given[name] for name in ("number", "classes", "height", "width")]
        end = ctypes.byref(options), None, given["room"], ctypes.byref(ctypes.c_int32(5))
        return int(functions.vitc_decode(ctypes.byref(level), *sizes, *end))

    level = Level(8, 1, 1, *[values.ctypes.data] * 3)
    options = Options(ctypes.sizeof(Options), 0.5, 0.5, 9, 9)
    plain = {"number": 1, "classes": 2, "height": 8, "width": 8, "room": 0}
    assert decoded(plain, level, options) == OK
    for name, value in change.items():
        for owner in (level, options):
            if hasattr(owner, name):
                setattr(owner, name, value)
    assert decoded(asked, level, options) == ARGUMENT


# --- a picture to boxes ---------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_the_runner_and_the_example_find_the_boxes_that_vitc_run_finds(
    artefacts: dict[str, Artefact],
    photo: Image.Image,
    tmp_path: Path,
    need_emulator: Any,
    target: str,
) -> None:
    artefact = artefacts[target]
    photo.save(tmp_path / "photo.ppm")
    photo.save(tmp_path / "photo.png")
    (tmp_path / "photo.rgb").write_bytes(photo.tobytes())
    wanted = see(artefacts["native"].path, tmp_path / "photo.png")[0].to_dict()["boxes"]
    assert len(wanted) > 3

    command = program(tmp_path, EXAMPLES / "detect.c", artefact, need_emulator)
    said = run(*command, tmp_path / "photo.rgb", photo.height, photo.width).splitlines()
    runner = [*command[:-1], artefact.runner, tmp_path / "photo.ppm", "--boxes"]
    shown = json.loads(run(*runner))
    few = json.loads(run(*runner, "--score", 0.45))

    assert shown["picture"] == {"width": photo.width, "height": photo.height}
    assert len(said) == len(shown["boxes"]) == len(wanted)
    for line, box, own in zip(said, shown["boxes"], wanted, strict=True):
        x0, y0, x1, y1 = (f"{side:.1f}" for side in box["box"])
        assert line == f"{box['label']} {box['score']:.3f}: {x0} {y0} to {x1} {y1}"
        assert (box["label"], box["class"]) == (own["label"], own["index"])
        # Across processors the maps differ by rounding.
        assert np.allclose([box["score"], *box["box"]], [own["score"], *own["box"]], atol=1e-3)
    assert few["boxes"] == [box for box in shown["boxes"] if box["score"] > np.float32(0.45)]
    assert 0 < len(few["boxes"]) < len(wanted)


def test_the_example_builds_with_the_compiler_of_the_machine(
    artefacts: dict[str, Artefact], photo: Image.Image, tmp_path: Path
) -> None:
    need_gcc()
    folder = artefacts["native"].path
    (tmp_path / "photo.rgb").write_bytes(photo.tobytes())
    out = tmp_path / "detect"
    run("gcc", EXAMPLES / "detect.c", folder / "libvitc_model.a", f"-I{folder}", "-pthread",
        "-o", out)  # fmt: skip
    photo.save(tmp_path / "photo.png")
    boxes = see(folder, tmp_path / "photo.png")[0].boxes
    assert boxes is not None
    said = run(out, tmp_path / "photo.rgb", photo.height, photo.width).splitlines()
    assert [float(line.split(":")[0].split()[-1]) for line in said] == [
        round(float(score), 3) for score in boxes.scores
    ]


def test_maps_of_other_sizes_are_no_detectors(
    onnx: Path, photo: Image.Image, tmp_path: Path, need_emulator: Any
) -> None:
    model = load_onnx(onnx)[0]
    given = {str(value.name): value for value in model.graph.outputs}
    for name, other in (("classes", "boxes"), ("boxes", "classes")):
        given[f"{name}_8"].name = f"other_{other}_8"
    for value in model.graph.outputs:
        value.name = str(value.name).removeprefix("other_")
    ir.save(model, tmp_path / "swapped.onnx")
    (tmp_path / "photo.rgb").write_bytes(photo.tobytes())
    artefact = compiled(tmp_path / "swapped.onnx")
    command = program(tmp_path, EXAMPLES / "detect.c", artefact, need_emulator)
    done = subprocess.run(
        [*command, tmp_path / "photo.rgb", str(photo.height), str(photo.width)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ""
    assert done.stderr.startswith("An entry or a port does not exist")


def test_a_picture_that_is_none_is_one_sentence(
    artefacts: dict[str, Artefact], tmp_path: Path
) -> None:
    runner = artefacts["native"].runner
    cases = {
        b"P5 3 3 255 " + bytes(9): "no PPM of 8 bits",
        b"P6 3 3 65535 " + bytes(54): "no PPM of 8 bits",
        b"P6 3 0 255 ": "no PPM of 8 bits",
        b"P6 # wide\n3 3\n255\n" + bytes(26): "cut off",
        b"P6 99999 3 255\n": "no PPM of 8 bits",
        b"": "no PPM of 8 bits",
    }
    for content, words in cases.items():
        (tmp_path / "p.ppm").write_bytes(content)
        done = subprocess.run(
            [runner, tmp_path / "p.ppm", "--boxes"], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
    (tmp_path / "p.ppm").write_bytes(b"P6 # wide\n3 3\n255\n" + bytes(27))
    assert "boxes" in json.loads(run(runner, tmp_path / "p.ppm", "--boxes"))
