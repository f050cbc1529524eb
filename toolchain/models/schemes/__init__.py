"""Binarization schemes: how latent weights and activations become signs, and their gradients."""

from __future__ import annotations

from vitc.models.schemes.bibert import BIBERT
from vitc.models.schemes.scheme import Scheme
from vitc.models.schemes.table import SCHEMES, scheme

__all__ = ["BIBERT", "SCHEMES", "Scheme", "scheme"]
