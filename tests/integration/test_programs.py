"""An artefact in programs of a user: CMake, pkg-config, C, C++, Android's build, ctypes."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.absent import absent, need_gcc
from vitc import api
from vitc.places import find_cache
from vitc.runtime import Artefact

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
HEIGHT, WIDTH = 41, 57
PAGE = 16384

CLEAR = """\
$(foreach name,MODULE SRC_FILES EXPORT_C_INCLUDES CFLAGS STATIC_LIBRARIES LDFLAGS,$(eval \
LOCAL_$(name) :=))
LOCAL_PATH := $(SOURCES)
"""
PREBUILT = """\
$(LOCAL_MODULE)_FILE := $(LOCAL_SRC_FILES)
$(LOCAL_MODULE)_INCLUDES := $(LOCAL_EXPORT_C_INCLUDES)
"""
SHARED = """\
lib$(LOCAL_MODULE).so: $(LOCAL_PATH)/$(LOCAL_SRC_FILES) ; $(PYTHON) -m ziglang cc \
 -target aarch64-linux-musl -shared -fPIC -fno-sanitize=all $(LOCAL_CFLAGS) -I$(SHIM) \
 $(foreach it,$(LOCAL_STATIC_LIBRARIES),-I$($(it)_INCLUDES)) $< \
 $(foreach it,$(LOCAL_STATIC_LIBRARIES),$($(it)_FILE)) $(LOCAL_LDFLAGS) -o $@
"""
JNI = """\
#include <stdint.h>
typedef int32_t jint; typedef int64_t jlong; typedef int8_t jbyte; typedef float jfloat;
typedef void *jclass, *jfloatArray, *jbyteArray;
typedef const struct JNINativeInterface *JNIEnv;
struct JNINativeInterface {
  jclass (*FindClass)(JNIEnv *, const char *);
  jint (*ThrowNew)(JNIEnv *, jclass, const char *);
  jint (*GetArrayLength)(JNIEnv *, void *);
  jfloatArray (*NewFloatArray)(JNIEnv *, jint);
  jbyte *(*GetByteArrayElements)(JNIEnv *, jbyteArray, unsigned char *);
  jfloat *(*GetFloatArrayElements)(JNIEnv *, jfloatArray, unsigned char *);
  void (*ReleaseByteArrayElements)(JNIEnv *, jbyteArray, jbyte *, jint);
  void (*ReleaseFloatArrayElements)(JNIEnv *, jfloatArray, jfloat *, jint);
};
#define JNIEXPORT __attribute__((visibility("default")))
#define JNICALL
#define JNI_ABORT 2
"""


@dataclass(frozen=True)
class Models:
    """Two networks: the first compiled without a prefix and as cats, the second as dogs."""

    plain: Artefact
    cats: Artefact
    dogs: Artefact
    pixels: np.ndarray
    raw: Path

    def expected(self, artefact: Artefact) -> tuple[str, np.ndarray]:
        """Label and logits of the picture, by vitc in Python."""
        logits = artefact(artefact.preprocess(self.pixels))[0]
        return artefact.manifest.labels[int(logits.argmax())], logits


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Models:
    made = tmp_path_factory.mktemp("made")
    unchecked = api.CompileOptions(check=False)
    for name, seed in (("cats", 1), ("dogs", 2)):
        model = api.new("micro", depth=1, seed=seed)
        model.labels = tuple(f"{name} {i} \N{LATIN SMALL LETTER E WITH ACUTE}" for i in range(10))
        api.export(model, made / f"{name}.onnx", api.ExportOptions(check=False))
        options = api.CompileOptions(check=False, symbol_prefix=name)
        api.compile(made / f"{name}.onnx", made / name, options)
    api.compile(made / "cats.onnx", made / "plain", unchecked)
    # Where the folders lie afterwards is for the user to say.
    folder = tmp_path_factory.mktemp("moved") / "with a space"
    shutil.move(made, folder)
    pixels = np.random.default_rng(4).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    pixels.tofile(folder / "pixels.raw")
    opened = [Artefact.open(folder / name) for name in ("plain", "cats", "dogs")]
    return Models(*opened, pixels, folder / "pixels.raw")


def run(*command: object, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=600, cwd=folder,
        env=os.environ | environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check_said(line: str, expected: tuple[str, np.ndarray]) -> None:
    label, logits = expected
    words = line.split()
    assert " ".join(words[: -len(logits)]) == label
    found = np.array([float.fromhex(word) for word in words[-len(logits) :]], np.float32)
    assert np.array_equal(found, logits)


def program(name: str) -> str:
    """A tool of the machine, or of the environment of the tests."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which(name, path=f"{beside}:{os.environ.get('PATH', '')}")
    if found is None:
        absent(f"no {name}", f"VITC_REQUIRE_{name.upper().replace('-', '_')}")
    return str(found)


def test_a_cmake_project_links_shared_static_and_two_models_at_once(models, tmp_path) -> None:
    need_gcc()
    cmake = program("cmake")
    shutil.copytree(HERE, tmp_path / "project", ignore=shutil.ignore_patterns("*.py", "__py*"))
    folders = ";".join(str(each.path) for each in (models.plain, models.cats, models.dogs))
    built = tmp_path / "built"
    options = ["-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_PREFIX_PATH={folders}"]
    run(cmake, "-S", "project", "-B", built, *options, folder=tmp_path)
    run(cmake, "--build", built, folder=tmp_path)

    for name in ("shared", "static"):
        said = run(built / name, models.raw, folder=tmp_path)
        check_said(said, models.expected(models.plain))
    cats, dogs, error = run(built / "two", models.raw, folder=tmp_path).splitlines()
    check_said(cats, models.expected(models.cats))
    check_said(dogs, models.expected(models.dogs))
    assert cats != dogs
    assert error == (
        "1 A pointer is null or no live handle, an option is unknown, or the thread count is not "
        "1 to 64."
    )


def test_cmake_does_not_find_a_model_for_another_processor_and_says_so(models, tmp_path) -> None:
    cmake = program("cmake")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(p LANGUAGES NONE)\n"
        "find_package(vitc CONFIG REQUIRED)\n"
    )
    options = ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=riscv64"]
    done = subprocess.run(
        [cmake, *options, f"-DCMAKE_PREFIX_PATH={models.plain.path}", "-B", "built", "."],
        capture_output=True, text=True, timeout=600, cwd=tmp_path, check=False,
    )  # fmt: skip

    assert done.returncode != 0
    assert "not for riscv64" in " ".join(done.stderr.split())


@pytest.mark.parametrize("name", ["plain", "cats"])
def test_pkg_config_gives_the_flags_of_a_folder_with_a_space(models, tmp_path, name) -> None:
    compiler, tool = need_gcc(), program("pkg-config")
    artefact = getattr(models, name)
    package = "vitc_model" if name == "plain" else "cats"
    source = (HERE / "one_model.c").read_text()
    if name == "cats":
        source = source.replace("<vitc_model.h>", "<cats.h>").replace("vitc_", "cats_")
        source = source.replace("cats_model *", "vitc_model *").replace(
            "cats_status s", "vitc_status s"
        )
    (tmp_path / "program.c").write_text(source)
    # The flags are words of a shell, with what is special in them escaped.
    command = f'eval {compiler} program.c "$({tool} --cflags --libs {package})" -o program'
    run("sh", "-c", command, folder=tmp_path, PKG_CONFIG_PATH=str(artefact.path))
    said = run("./program", models.raw, folder=tmp_path, LD_LIBRARY_PATH=str(artefact.path))
    check_said(said, models.expected(artefact))


def test_an_artefact_with_a_prefix_is_an_artefact_like_any_other(models) -> None:
    from vitc.verify.rebuilding import SAME_BYTES, compare_with_rebuilt

    cats = models.cats
    assert cats.manifest.symbol_prefix == "cats"
    assert {"cats.h", "cats.pc", "catsConfig.cmake", "libcats.a"} <= set(cats.manifest.digests)
    assert "symbol_prefix" not in models.plain.manifest.to_dict()
    assert np.array_equal(models.expected(cats)[1], models.expected(models.plain)[1])
    assert compare_with_rebuilt(cats) == (SAME_BYTES, [])


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        *((prefix, "is no name of C") for prefix in ("9cats", "a-b", "x" * 33, "é")),
        *((prefix, r"is a word of C\+\+") for prefix in ("int", "class", "Model", "best")),
        # Where -I and -L of the artefact come first, these would take the place of the system's.
        *((prefix, rf"a system header, {prefix}\.h") for prefix in ("string", "math", "immintrin")),
        *((prefix, f"a system library, lib{prefix}") for prefix in ("c", "m", "log")),
        *((prefix, "what vitc calls its own") for prefix in ("vitc", "vitc_model")),
        ("sem", "would have sem_destroy, which the C library has"),
    ],
)
def test_a_prefix_that_cannot_be_had_is_refused(models, tmp_path, prefix, said) -> None:
    options = api.CompileOptions(symbol_prefix=prefix)
    with pytest.raises(api.VitcError, match=said):
        api.compile(models.plain.onnx, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_ctypes_without_vitc_or_torch_classifies(models, tmp_path) -> None:
    np.save(tmp_path / "pixels.npy", models.pixels)
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['x', {str(models.plain.path)!r}, 'pixels.npy']\n"
        f"runpy.run_path({str(EXAMPLES / 'ctypes_only.py')!r}, run_name='__main__')\n"
        "assert not {'vitc', 'torch', 'tvm', 'PIL'} & set(sys.modules)\n"
    )
    check_said(run(sys.executable, "-c", code, folder=tmp_path), models.expected(models.plain))


def alignments(library: Path) -> list[int]:
    """Of the load segments of a 64-bit ELF library."""
    data = library.read_bytes()
    (start,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    headers = [struct.unpack_from("<I44xQ", data, start + i * size) for i in range(count)]
    return [alignment for kind, alignment in headers if kind == 1]


def test_ndk_builds_android_mk_into_a_library_of_16_kb_pages(models, tmp_path) -> None:
    make = program("make")
    options = api.CompileOptions(target="android-arm64", check=False, symbol_prefix="cats")
    cats = api.compile(models.cats.onnx, tmp_path / "cats", options)
    shim = tmp_path / "shim"
    shim.mkdir()
    for name, text in {"clear": CLEAR, "prebuilt": PREBUILT, "shared": SHARED}.items():
        (shim / f"{name}.mk").write_text(text)
    (shim / "jni.h").write_text(JNI)
    cache = str(find_cache().folder / "zig")
    run(
        make, "-f", HERE / "ndk.mk", f"SOURCES={EXAMPLES / 'android'}", f"SHIM={shim}",
        f"CATS={cats.path}", f"PYTHON={sys.executable}", folder=tmp_path,
        ZIG_GLOBAL_CACHE_DIR=cache, ZIG_LOCAL_CACHE_DIR=cache,
    )  # fmt: skip

    library = (tmp_path / "libclassifier.so").read_bytes()
    assert library[18:20] == b"\xb7\x00"  # AArch64
    assert b"Java_example_Classifier_classify" in library
    for each in (tmp_path / "libclassifier.so", cats.library):
        assert alignments(each)
        assert all(alignment % PAGE == 0 for alignment in alignments(each)), each
