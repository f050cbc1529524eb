"""Binarized backbones of several stages; DeiT is `vitc.models.sibivit`."""
