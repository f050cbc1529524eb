"""The files of these tests are those that the exporter's tests export."""

from __future__ import annotations

from tests.exporter.conftest import exported, images, model, source

__all__ = ["exported", "images", "model", "source"]
