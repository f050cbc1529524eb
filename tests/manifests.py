"""Manifests of artefacts that no compiler made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitc.runtime.manifest import EntryFacts, Manifest, TargetFacts
from vitc.runtime.port import Port
from vitc.targets import find

__all__ = ["classifier_manifest"]


def classifier_manifest(
    image: tuple[int, int, int],
    classes: int,
    *,
    target: str = "native",
    batch: int = 1,
    config: Mapping[str, Any] | None = None,
) -> Manifest:
    """That of an image classifier without steps."""
    entry = EntryFacts(
        "run",
        (Port("input", "float32", image),),
        (Port("logits", "float32", (classes,)),),
        (),
    )
    return Manifest(
        vitc="0",
        tvm="0",
        compiler="",
        dialect=1,
        source_sha256=None,
        config=config or {},
        preprocessing={},
        labels=(),
        passes=(),
        target=TargetFacts.of(find(target)),
        batch=batch,
        workspace_bytes=0,
        sizes={},
        tiles={},
        entries=(entry,),
    )
