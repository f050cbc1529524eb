"""Detection and segmentation: data, targets, losses and measures."""
