"""Binarization schemes: how latent weights and activations become signs, and their gradients."""

from __future__ import annotations

from vitc.models.schemes.bibert import BIBERT
from vitc.models.schemes.bit import BIT, BIT_ELASTIC
from vitc.models.schemes.recu import RECU
from vitc.models.schemes.scheme import Scheme
from vitc.models.schemes.table import SCHEMES, find_scheme, scheme

__all__ = ["BIBERT", "BIT", "BIT_ELASTIC", "RECU", "SCHEMES", "Scheme", "find_scheme", "scheme"]
