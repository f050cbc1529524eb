"""What build systems read of an artefact: pkg-config and CMake, wherever the folder lies."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from vitc.compiler.symbol_prefix import prefixed_header
from vitc.targets.table import Target

__all__ = ["HEADER", "WRAPPER", "static_name", "write_integration"]

HEADER: Final = "vitc_model.h"
WRAPPER: Final = "vitc_model.hpp"

_PKG_CONFIG: Final = """\
prefix=${{pcfiledir}}
Name: {name}
Description: a network compiled by vitc for {target}
Version: {version}
Cflags: -I${{prefix}}
Libs: -L${{prefix}} {libraries}
"""

_CMAKE: Final = """\
# vitc: a network compiled for {target}. find_package({package} CONFIG REQUIRED PATHS <this folder>)
if(CMAKE_SYSTEM_PROCESSOR AND NOT CMAKE_SYSTEM_PROCESSOR MATCHES "^({machines})$")
  set({package}_FOUND FALSE)
  set({package}_NOT_FOUND_MESSAGE
    "it was compiled for {target}, not for ${{CMAKE_SYSTEM_PROCESSOR}}")
  return()
endif()
if(NOT TARGET {package}::model)
  set(THREADS_PREFER_PTHREAD_FLAG ON)
  find_package(Threads REQUIRED)
{targets}endif()
"""

_TARGET: Final = """\
  add_library({name} {kind} IMPORTED)
  set_target_properties({name} PROPERTIES
    IMPORTED_LOCATION "${{CMAKE_CURRENT_LIST_DIR}}/{file}"
    INTERFACE_INCLUDE_DIRECTORIES "${{CMAKE_CURRENT_LIST_DIR}}"
    {more})
"""


def static_name(prefix: str) -> str:
    """File name of the static library."""
    return f"lib{prefix or 'vitc_model'}.a"


def write_integration(
    folder: Path,
    sources: Path,
    target: Target,
    prefix: str,
    shared: str,
    *,
    more: Sequence[str] = (),
) -> None:
    """Write headers and the files of pkg-config and CMake into an artefact.

    Args:
        folder: The artefact.
        sources: Where the headers come from.
        target: Machine.
        prefix: Of the symbols of the static library; empty for the usual ones. With one, that
            library is what programs link: two shared ones of a name do not fit into one program.
        shared: File name of the shared library.
        more: Headers of what the libraries do beside running.
    """
    texts = {
        name: (sources / name).read_text(encoding="utf-8")
        for name in (HEADER, WRAPPER, *more)
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    static = ("STATIC", static_name(prefix), "INTERFACE_LINK_LIBRARIES Threads::Threads")
    if prefix:
        declared = prefixed_header(
            texts[HEADER], prefix, {name: texts[name] for name in more}
        )
        (folder / f"{prefix}.h").write_text(declared, encoding="utf-8")
        made = {f"{prefix}::model": static}
    else:
        made = {
            "vitc::model": ("SHARED", shared, f"IMPORTED_SONAME {shared}"),
            "vitc::model_static": static,
        }
    package, name = prefix or "vitc", prefix or "vitc_model"
    pkg_config = _PKG_CONFIG.format(
        name=name,
        target=target.description,
        version=version("vitc"),
        libraries=f"-l{name} -pthread" if prefix else f"-l{name}",
    )
    (folder / f"{name}.pc").write_text(pkg_config, encoding="utf-8")
    targets = "".join(
        _TARGET.format(name=key, kind=kind, file=file, more=more)
        for key, (kind, file, more) in made.items()
    )
    cmake = _CMAKE.format(
        package=package,
        target=target.description,
        machines="|".join(target.machine),
        targets=targets,
    )
    (folder / f"{package}Config.cmake").write_text(cmake, encoding="utf-8")
