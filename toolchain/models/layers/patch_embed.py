"""The patch embedding: one convolution without overlap, fp32, or of integers on bytes."""

from __future__ import annotations

from torch import Tensor, nn

from vitc.models.layers.byte_projection import ByteProjection

__all__ = ["PatchEmbed"]


class PatchEmbed(nn.Module):
    """Non-overlapping patches through one convolution, fp32.

    Args:
        patch_size: Side of a patch in pixels.
        width: C, channels of a token.
        colours: Channels of the image.
    """

    def __init__(self, patch_size: int, width: int, colours: int = 3) -> None:
        super().__init__()
        self.proj: nn.Conv2d | ByteProjection = nn.Conv2d(
            colours, width, kernel_size=patch_size, stride=patch_size
        )

    def forward(self, image: Tensor) -> Tensor:
        """Images [B, 3, H, W] to patches [B, N, C], row-major; bytes in the integer form."""
        patches: Tensor = self.proj(image)
        if isinstance(self.proj, ByteProjection):
            return patches
        return patches.flatten(2).transpose(1, 2)
