"""Disjoint Masking with Joint Distillation: pre-training of a full-precision twin without labels.

Ma et al., Disjoint Masking With Joint Distillation for Efficient Masked Image Modeling, IEEE TMM
26, 2023.
"""
