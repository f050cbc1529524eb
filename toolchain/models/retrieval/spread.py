"""What is made a sign of is spread around zero: so every bit tells examples apart."""

from __future__ import annotations

from torch import Tensor, nn

from vitc.models.layers.norm import AxisNorm

__all__ = ["Spread"]


class Spread(nn.Module):
    """Batch norm of each value of each row, without gain and shift (ours).

    Signs of values that all examples share say nothing, and where all scores are equal the ranking
    loss has a saddle: with the norm towers cannot stay there. A sign needs its mean alone.

    Args:
        rows: Vectors of an example.
        width: d, values of each.
    """

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.shape = (rows, width)
        self.norm = AxisNorm(rows * width, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, rows, d] to the same shape."""
        if self.training:
            spread: Tensor = self.norm(x.flatten(1)).unflatten(1, self.shape)
            return spread
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None and variance is not None  # noqa: S101, PT018 - it tracks them
        deviation = (variance + self.norm.eps).sqrt()
        return (x - mean.view(self.shape)) / deviation.view(self.shape)
