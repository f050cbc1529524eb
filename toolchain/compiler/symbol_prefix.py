"""Names of symbols in object files, so that two models fit into one program.

Objects are ELF files whose symbols name a place in a table of strings. The table is copied to the
end of the file with the new names behind it: no section moves, and no relocation knows of names.
"""

from __future__ import annotations

import ctypes
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vitc.compiler.link import zig_folder
from vitc.errors import VitcError

__all__ = ["STANDARD_PREFIX", "check_prefix", "prefix_symbols", "prefixed", "prefixed_header"]

STANDARD_PREFIX: Final = "vitc"

_IDENTIFIER: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
_CPP: Final = """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t
    char32_t class co_await co_return co_yield compl concept const const_cast consteval constexpr
    constinit continue decltype default delete do double dynamic_cast else enum explicit export
    extern false float for friend goto if inline int long mutable namespace new noexcept not not_eq
    nullptr operator or or_eq private protected public register reinterpret_cast requires return
    short signed sizeof static static_assert static_cast struct switch template this thread_local
    throw true try typedef typeid typename union unsigned using virtual void volatile wchar_t while
    xor xor_eq
"""
_WORDS: Final = frozenset((*_CPP.split(), "Error", "Library", "Model", "best", "standard"))
"""Words of C++, and what namespace vitc has besides."""
_SYSTEM: Final = """
    android anl atomic c crypt dl gcc gcc_eh gcc_s jnigraphics log m nsl pthread resolv rt util z
"""
_LIBRARIES: Final = frozenset(_SYSTEM.split())
"""What a linker looks for first where our library lies, if it is called so."""
_HEADERS: Final = ("include", "libc/include/generic-glibc", "libc/include/generic-musl")
_FUNCTION: Final = re.compile(r"VITC_API ([^;(]*?)\bvitc_(\w+)(\([^;]*\));")
_OTHER: Final = "Choose another, such as cats."
_SYMBOL_TABLE: Final = 2
_LOCAL, _UNDEFINED = 0, 0


@dataclass(frozen=True)
class _Form:
    """Where the fields of an ELF file lie, by its class."""

    header: str
    section: str
    symbol: str

    @property
    def symbol_size(self) -> int:
        return struct.calcsize(self.symbol)


# Of the header: offset of the sections, size and number of their descriptions. Of a section: type,
# offset, size, link. Of a symbol: name, info, section.
_FORMS: Final = {
    1: _Form("<32xI10xHH", "<4xI8xIII4x", "<IxxxxxxxxBxH"),
    2: _Form("<40xQ10xHH", "<4xI16xQQI4x", "<IBxH16x"),
}


def check_prefix(prefix: str) -> str:
    """The prefix, if symbols, files and a C++ object may be called by it.

    Raises:
        VitcError: If it is no identifier of C of up to 32 letters, or is one that C, C++, a library
            or vitc itself has.
    """
    if not _IDENTIFIER.fullmatch(prefix):
        raise VitcError(
            f"The symbol prefix {prefix!r} is no name of C.",
            "Use up to 32 letters, digits and underscores, a letter first, such as cats.",
        )
    headers = (zig_folder() / "lib" / folder / f"{prefix}.h" for folder in _HEADERS)
    if prefix in _WORDS:
        taken = "a word of C++, or of vitc_model.hpp"
    elif any(header.exists() for header in headers):
        taken = f"the name of a system header, {prefix}.h"
    elif prefix in _LIBRARIES:
        taken = f"the name of a system library, lib{prefix}"
    elif prefix == STANDARD_PREFIX or prefix.startswith(f"{STANDARD_PREFIX}_"):
        taken = "what vitc calls its own"
    else:
        return prefix
    raise VitcError(f"The symbol prefix {prefix!r} is {taken}.", _OTHER)


def prefixed(name: str, prefix: str) -> str:
    """The symbol that `name` becomes: ``cats_run`` of ``vitc_run``."""
    return f"{prefix}_{name.removeprefix(f'{STANDARD_PREFIX}_')}"


def prefix_symbols(objects: Iterable[Path], prefix: str) -> None:
    """Rename, in place, every global symbol that one of the objects defines, in all of them.

    Args:
        objects: ELF files that are linked together and need no other.
        prefix: What the names begin with afterwards.

    Raises:
        VitcError: If two symbols would get one name.
    """
    files = [bytearray(path.read_bytes()) for path in objects]
    defined = {
        name
        for data in files
        for _, name, info, section in _symbols(data)
        if info >> 4 != _LOCAL and section != _UNDEFINED
    }
    names = {name: prefixed(name, prefix) for name in defined}
    if len(set(names.values())) < len(names):
        raise VitcError(f"With the symbol prefix {prefix!r} two symbols have one name.", _OTHER)
    system = ctypes.CDLL(None)
    for name in sorted(names.values()):
        if hasattr(system, name):
            raise VitcError(
                f"With the symbol prefix {prefix!r} the library would have {name}, which the C "
                "library has.",
                _OTHER,
            )
    for path, data in zip(objects, files, strict=True):
        _rename(data, names)
        path.write_bytes(data)


def _sections(data: bytearray) -> tuple[_Form, list[tuple[int, int, int, int, int]]]:
    form = _FORMS[data[4]]
    start, size, count = struct.unpack_from(form.header, data)
    places = [start + i * size for i in range(count)]
    return form, [(at, *struct.unpack_from(form.section, data, at)) for at in places]


def _symbols(data: bytearray) -> Iterable[tuple[int, str, int, int]]:
    """Place, name, binding and section of every symbol."""
    form, sections = _sections(data)
    for _, kind, offset, size, link in sections:
        if kind != _SYMBOL_TABLE:
            continue
        strings = sections[link][2]
        for at in range(offset, offset + size, form.symbol_size):
            name, info, section = struct.unpack_from(form.symbol, data, at)
            end = data.index(0, strings + name)
            yield at, data[strings + name : end].decode(), info, section


def _rename(data: bytearray, names: Mapping[str, str]) -> None:
    form, sections = _sections(data)
    (table,) = (section for section in sections if section[1] == _SYMBOL_TABLE)
    place, _, offset, size, _ = sections[table[4]]
    strings = data[offset : offset + size]
    for at, name, _, _ in list(_symbols(data)):
        if name in names:
            struct.pack_into("<I", data, at, len(strings))
            strings += names[name].encode() + b"\0"
    wide = form is _FORMS[2]
    struct.pack_into(
        "<QQ" if wide else "<II", data, place + (24 if wide else 16), len(data), len(strings)
    )
    data += strings


def prefixed_header(header: str, prefix: str, more: Mapping[str, str] | None = None) -> str:
    """The C header that declares the functions of vitc_model.h by their other names.

    Args:
        header: Text of vitc_model.h, which keeps types and constants.
        prefix: Of the names.
        more: Texts of the other headers by their file names; each includes vitc_model.h.
    """
    functions = _FUNCTION.findall(header)
    others = more or {}
    every = (*functions, *(found for text in others.values() for found in _FUNCTION.findall(text)))
    guard = f"VITC_MODEL_OF_{prefix.upper()}_H"
    declared = "\n".join(
        f"VITC_API {kind}{prefix}_{name}{parameters};" for kind, name, parameters in every
    )
    include = "\n".join(f'#include "{name}"' for name in others or ("vitc_model.h",))
    table = ", ".join(f"{prefix}_{name}" for _, name, _ in functions)
    return f"""\
/* vitc: the functions of lib{prefix}.a, each as the one of vitc_model.h that has its name. */
#ifndef {guard}
#define {guard}

{include}

#ifdef __cplusplus
extern "C" {{
#endif

{declared}

#ifdef __cplusplus
}}
#endif

#ifdef VITC_MODEL_HPP
namespace vitc {{
/* For vitc::Model{{1, vitc::{prefix}}}. */
inline const Library {prefix}{{{table}}};
}}
#endif
#endif
"""
