"""Decoupled training of the two branches (SI-BiViT): first the MLP, by a twin; then SI beside it.

| stage | network | loss | what moves |
|---|---|---|---|
| 32W1A | 32-bit weights, no SI | classification + weight * MLP term | all |
| 1W1A | 1-bit weights, no SI | the same | all |
| SI | 1-bit weights, SI with scale 0 | classification | the MLP branch by a smaller rate, or not |

The MLP term is the `normalised_difference` between the outputs of the student's MLPs and of the
twin's, block by block. The stages, and which are the paper's: docs/training.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn

from vitc.errors import VitcError
from vitc.models import NetworkConfig
from vitc.models.binary_linear import begin_epoch
from vitc.models.described import counted
from vitc.training.losses import Losses, normalised_difference
from vitc.training.memory import MemoryNeed, estimate
from vitc.training.objectives.classification import Classification
from vitc.training.options import TrainOptions
from vitc.training.start import initial

__all__ = ["Decoupled"]

MLP_WEIGHT: Final = 0.1
MLP_RATE: Final = 0.1
_NAMES: Final = ("32W1A", "1W1A", "SI")
_SI_STAGE: Final = 2
_MLP: Final = re.compile(r"(?:.*\.)?blocks\.\d+\.mlp")
_MLP_BRANCH: Final = re.compile(r"(?:.*\.)?blocks\.\d+\.(?:mlp|norm2)\.")


class _Watched:
    """What the MLPs of a network put out in its last forward pass, in order of the blocks."""

    def __init__(self, network: nn.Module) -> None:
        self.outputs: list[Tensor] = []
        self._hooks = [
            module.register_forward_hook(self._keep)
            for name, module in network.named_modules()
            if _MLP.fullmatch(name)
        ]

    def _keep(self, _: nn.Module, __: Any, output: Tensor) -> None:
        self.outputs.append(output)

    def take(self) -> list[Tensor]:
        """The outputs since the last call."""
        outputs, self.outputs = self.outputs, []
        return outputs

    def close(self) -> None:
        """Watch no more."""
        for hook in self._hooks:
            hook.remove()


class Decoupled(Classification):
    """Classification in three stages; arguments are those of `Classification`.

    Raises:
        VitcError: Also if the twin's MLPs are not of the student's shapes.
    """

    def __init__(self, options: TrainOptions, note: Callable[[str], None]) -> None:
        super().__init__(options, note)
        self.stages = options.stage_lengths
        self.weight = MLP_WEIGHT if options.mlp_weight is None else options.mlp_weight
        self.slow = MLP_RATE if options.mlp_rate is None else options.mlp_rate
        self.watched: tuple[_Watched, _Watched] | None = None
        self._check_shapes()

    def stage_config(self, stage: int) -> NetworkConfig:
        """The network without SI and with 32-bit weights, then with 1-bit weights, then with SI."""
        return self.config.replace(si=stage == _SI_STAGE, weight_bits=1 if stage else 32)

    def described(self) -> dict[str, Any]:
        """The options, with the epochs of each stage and what was left to be chosen."""
        chosen = {"mlp_weight": self.weight, "mlp_rate": self.slow}
        return {**super().described(), **chosen, "stage_epochs": [*self.stages]}

    def memory(self) -> MemoryNeed:
        """What the largest network takes, that of the last stage."""
        with torch.random.fork_rng(devices=[]):
            largest = initial(self.stage_config(_SI_STAGE), self.parts.train, None)
        return estimate(largest, self.parts, self.options.label_smoothing)

    def stage_name(self, stage: int) -> str:
        """``32W1A``, ``1W1A`` or ``SI``."""
        return _NAMES[stage]

    def enter(self, stage: int) -> None:
        """Go on from the network of the stage before; an SI branch begins with scale 0."""
        if stage:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.options.seed + stage)
                self.model = initial(self.stage_config(stage), self.parts.train, self.model)
        for watched in self.watched or ():
            watched.close()
        self.watched = None
        if stage < _SI_STAGE:
            self.watched = self._watch()
        elif not self.slow:
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(not _MLP_BRANCH.match(name))

    def rate_share(self, name: str) -> float:
        """Less for the MLP branch as soon as there is SI."""
        return self.slow if self.model.config.si and _MLP_BRANCH.match(name) else 1.0

    def begin_epoch(self, stage: int, epoch: int) -> None:
        """Set what the scheme schedules by epochs: over all of those with 1-bit weights."""
        binary = self.stages[1:]
        before = sum(self.stages[1:stage])
        begin_epoch(self.model, before + epoch if stage else 0, sum(binary))

    def losses(
        self, network: nn.Module, batch: tuple[Tensor, Tensor], draws: torch.Generator
    ) -> Losses:
        """That of classification; before there is SI, the MLP term too, as part `mlp`."""
        if self.watched is None:
            return super().losses(network, batch, draws)
        for watched in self.watched:
            watched.take()
        losses = super().losses(network, batch, draws)
        own, wanted = (watched.take() for watched in self.watched)
        mlp = normalised_difference(own, wanted)
        return Losses(losses.total + self.weight * mlp, {**losses.parts, "mlp": mlp})

    def _watch(self) -> tuple[_Watched, _Watched]:
        assert self.teacher is not None  # noqa: S101 - the options hold that
        return _Watched(self.model), _Watched(self.teacher.network)

    @torch.no_grad()
    def _check_shapes(self) -> None:
        """Hold the outputs of the MLPs of both networks against each other on an empty image."""
        assert self.teacher is not None  # noqa: S101 - the options hold that
        image = torch.zeros(1, *self.config.input_shape)
        watched = self._watch()
        self.model.eval()(image)
        self.teacher.eval()(image)
        own, wanted = ([tuple(out.shape[1:]) for out in seen.take()] for seen in watched)
        for seen in watched:
            seen.close()
        hint = "Choose a twin of the same preset and depth (`vitc train --full-precision`)."
        if len(own) != len(wanted):
            raise VitcError(
                f"The teacher {self.options.teacher} has {counted(len(wanted), 'block')}, the "
                f"network to train {len(own)}.",
                hint,
            )
        for block, (ours, theirs) in enumerate(zip(own, wanted, strict=True)):
            if ours != theirs:
                raise VitcError(
                    f"The MLP of block {block} of the teacher {self.options.teacher} gives "
                    f"{list(theirs)}, that of the network to train {list(ours)}.",
                    hint,
                )
