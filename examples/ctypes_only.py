"""An artefact from Python without vitc: ctypes and NumPy, on any machine that has them.

python ctypes_only.py DIR PIXELS.npy    # uint8 [height, width, 3]
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import numpy as np


class Info(ctypes.Structure):
    """`vitc_info` of vitc_model.h."""

    _fields_ = (
        ("abi_version", ctypes.c_uint32),
        *((name, ctypes.c_int32) for name in ("batch", "entries", "channels", "height", "width")),
        *((name, ctypes.c_int32) for name in ("classes", "steps")),
        ("workspace_bytes", ctypes.c_size_t),
        ("target", ctypes.c_char_p),
    )


def classify(folder: Path, pixels: np.ndarray) -> tuple[str, np.ndarray]:
    """The label of the best class and the logits of a picture, uint8 [height, width, 3]."""
    library = ctypes.CDLL(str(folder / "libvitc_model.so"))
    library.vitc_status_text.restype = library.vitc_label.restype = ctypes.c_char_p
    info, model = Info(), ctypes.c_void_p()
    library.vitc_get_info(ctypes.byref(info))
    image = np.zeros((info.batch, 3, info.height, info.width), np.float32)
    logits = np.zeros((info.batch, info.classes), np.float32)
    dense = np.ascontiguousarray(pixels, np.uint8)

    def check(status: int) -> None:
        if status:
            raise RuntimeError(library.vitc_status_text(status).decode())

    check(library.vitc_create(1, ctypes.byref(model)))
    given = dense.ctypes.data_as(ctypes.c_void_p)
    made, found = (array.ctypes.data_as(ctypes.c_void_p) for array in (image, logits))
    check(library.vitc_preprocess(given, *dense.shape[:2], ctypes.c_size_t(0), made))
    check(library.vitc_run(model, made, found))
    library.vitc_destroy(model)
    best = int(logits[0].argmax())
    return (library.vitc_label(best) or str(best).encode()).decode(), logits[0]


if __name__ == "__main__":
    name, values = classify(Path(sys.argv[1]), np.load(sys.argv[2]))
    print(name, *(float(value).hex() for value in values))
