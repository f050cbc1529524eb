"""The artefact folder, a model in this process, and the C sources of driver and runner."""

from vitc.runtime.artefact import Artefact

__all__ = ["Artefact"]
