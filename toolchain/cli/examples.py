"""An example of each command, which its help ends with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["EXAMPLES", "epilog"]

EXAMPLES: Final[Mapping[str, tuple[str, ...]]] = {
    "new": ("vitc new deit-small --out m.safetensors",),
    "pretrain": ("vitc pretrain --data photos --epochs 40 --out t.safetensors",),
    "train": (
        "vitc train --preset micro --data digits --out m.safetensors",
        "vitc train --preset deit-small --data photos --teacher t.safetensors --resume",
    ),
    "probe": ("vitc probe t.safetensors --data photos --linear",),
    "export": (
        "vitc export m.safetensors --out m.onnx",
        "vitc export best.pth --labels names.txt --mean 0.5 --std 0.5",
    ),
    "compile": (
        "vitc compile m.onnx --target rpi4 --out there",
        "vitc compile image=image.onnx text=text.onnx score --out towers",
    ),
    "run": ("vitc run here photo.jpg --topk 3", "vitc run here photos/ --json answers.json"),
    "check": (
        "vitc check here --reference m.safetensors --data digits",
        "vitc check there --reference m.safetensors --device qemu",
    ),
    "bench": ("vitc bench here --threads 4", "vitc bench here --profile --report bench.html"),
    "tune": ("vitc tune here",),
    "inspect": ("vitc inspect m.onnx",),
    "package": ("vitc package here --name cats --version 1.2",),
    "search": ('vitc search photos.vidx "a dog on a beach" --top 5',),
    "targets": ("vitc targets",),
    "models": ("vitc models",),
    "doctor": ("vitc doctor --json -",),
    "demo": ("vitc demo --force",),
    "retrieve train": ("vitc retrieve train --mode inflate --data photos --out i.safetensors",),
    "retrieve shrink": (
        "vitc retrieve shrink --teacher i.safetensors --to fast --out f.safetensors",
    ),
    "retrieve bench": ("vitc retrieve bench --images 200000",),
    "index build": ("vitc index build photos --model here",),
    "index split": ("vitc index split photos.vidx --parts 4",),
    "device serve": ("vitc device serve --key rpi4 --tracker gateway:9190",),
    "device tracker": ("vitc device tracker --port 9190",),
}
"""By the words of the command."""


def epilog(name: str) -> str:
    """The end of a command's help."""
    # Click keeps the lines of a paragraph that begins with a backspace.
    return "\b\n" + "\n".join(["For example:", *(f"  {line}" for line in EXAMPLES[name])])
