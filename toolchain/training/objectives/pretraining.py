"""Masked views of pictures without labels: DMJD and MAE; the checkpoint is the twin they train."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import AdamW

from vitc.errors import VitcError
from vitc.models.architectures import twin_preset
from vitc.models.build import build_network
from vitc.models.checkpoint import write_checkpoint
from vitc.models.twins.loading import load_twin
from vitc.models.twins.twin import Twin
from vitc.outputs import FileOutput, write_file
from vitc.training.data import DIGITS
from vitc.training.dmjd.losses import masked_loss, visible_loss
from vitc.training.dmjd.masking import Masking, Views
from vitc.training.dmjd.network import MaskedEncoder, Pretrained
from vitc.training.dmjd.options import PRETRAINING, PretrainOptions, PretrainResult
from vitc.training.dmjd.picture import draw, hidden, rebuilt
from vitc.training.dmjd.schedule import adaptive_rate, warm_cosine
from vitc.training.dmjd.target_kinds import Features, Target, target_of
from vitc.training.epoch_order import Share, generator
from vitc.training.losses import Losses
from vitc.training.memory import MemoryNeed
from vitc.training.objectives.objective import Best, Ended, Objective
from vitc.training.options import EpochReport
from vitc.training.pictures import Crops, Pictures, find_sources
from vitc.training.progress_files import write_curve, write_history
from vitc.training.provenance import described

__all__ = ["INVISIBLE", "VISIBLE", "Pretraining"]

INVISIBLE: Final = "invisible"
VISIBLE: Final = "visible"
"""Names of the two losses."""

_BETAS: Final = (0.9, 0.95)
_NARROW: Final = 128
_SHOWN: Final = 4
_MASKS: Final = 63
"""Stream of the masks in the picture."""


class Pretraining(Objective[PretrainResult]):
    """Masked tokens are rebuilt, visible ones are predicted too; AdamW, a rise and half a cosine.

    Args:
        options: Of the run.
        note: Told what is left out, and how the rate follows from the options.

    Raises:
        VitcError: If data, preset, masks, target or teacher do not fit each other.
    """

    model: Pretrained
    examples: Pictures

    def __init__(self, options: PretrainOptions, note: Callable[[str], None]) -> None:
        self.options = options
        if options.shown.exists() and not (options.force or options.resume):
            raise VitcError(f"{options.shown} exists already.", "Replace it by --force.")
        preset = twin_preset(options.preset)
        config = preset.config.replace(depth=options.depth)
        shown = preset.preprocessing.on(options.background)
        twin = build_network(config, shown)
        chosen = options.chosen
        encoder = MaskedEncoder(twin)
        patch = encoder.twin.config.patch_size
        self.masking = Masking(
            *encoder.grid, chosen.corruption, options.predicted, chosen.views, chosen.blocks
        )
        self.teacher: Features | None = None
        self.target: Target
        if options.teacher is not None:
            network = load_twin(options.teacher)
            if not isinstance(network, Twin):
                raise VitcError(f"{options.teacher} is no full-precision network.")
            self.target = self.teacher = Features(network, encoder.grid)
        else:
            self.target = target_of(chosen.target, patch)
        height, width = config.input_shape[1:]
        self.examples = Pictures(
            find_sources(options.data, shown, every=options.every, note=note),
            Crops((height, width), options.least_crop, options.data != DIGITS, options.seed),
            skip_broken=options.skip_broken,
            say=note,
        )
        self.mean, self.std = (
            255 * torch.tensor(values)[:, None, None] for values in (shown.mean, shown.std)
        )
        count = self.target(torch.zeros(1, 3, height, width)).shape[-1]
        self.model = Pretrained(
            encoder,
            count,
            inner=options.decoder_width,
            depth=options.decoder_depth,
            distil=chosen.theta > 0,
        )
        self.stages = (options.epochs,)
        self.threads = 1 if config.widest <= _NARROW else None
        masked = self.masking.union / self.masking.units
        note(
            f"{len(self.examples)} pictures, {chosen.views} view{'s' if chosen.views > 1 else ''} "
            f"of each hide {self.masking.masked} of {self.masking.units} "
            f"{'blocks' if chosen.blocks else 'tokens'}, together {masked:.1%} of an image"
        )

    def described(self) -> dict[str, Any]:
        """The options: data by their resolved path, a teacher by its hash."""
        options = self.options
        chosen = options.chosen
        return {
            **described(options, (DIGITS,), ("pictures_every", "threads")),
            "teacher": None if self.teacher is None else self.teacher.teacher.source_sha256,
            "views": chosen.views,
            "corruption": chosen.corruption,
            "prediction": options.predicted,
            "blocks": chosen.blocks,
            "target": chosen.target,
            "theta": chosen.theta,
            "images": len(self.examples),
        }

    def memory(self) -> MemoryNeed | None:
        """Not known."""
        return None

    def prepare(self, accelerator: Accelerator) -> None:
        """Put the teacher and what normalises images on the device."""
        self.accelerator = accelerator
        device = accelerator.device
        self.mean, self.std = self.mean.to(device), self.std.to(device)
        if self.teacher is not None:
            self.target = self.teacher = self.teacher.to(device)

    @property
    def learning_rate(self) -> float:
        """The largest: by the images of a step, and how much of them is predicted."""
        options = self.options
        return adaptive_rate(
            options.base_rate, options.batch_size, options.chosen.corruption, options.predicted
        )

    def optimizer(self) -> AdamW:
        """AdamW; everything decays but biases and norms."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        return AdamW(
            [
                {
                    "params": [p for p in parameters if p.ndim > 1],
                    "weight_decay": self.options.weight_decay,
                },
                {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=self.learning_rate,
            betas=_BETAS,
            fused=True,
        )

    def rate(self, step: int, steps: int, total: int) -> float:
        """A rise from 0, and half a cosine to 0."""
        return warm_cosine(
            1.0, step / steps, epochs=max(total / steps, 1), warmup=self.options.warmup
        )

    def begin_epoch(self, stage: int, epoch: int) -> None:  # noqa: ARG002
        """Take the crops of an epoch."""
        self.examples.epoch = epoch

    def losses(self, network: nn.Module, batch: tuple[Tensor], draws: torch.Generator) -> Losses:
        """The loss of each branch, and their sum with theta."""
        images = batch[0].float()
        views = self._drawn(self.share, draws)
        invisible, told = network((images - self.mean) / self.std, views)
        target = self.target(images)
        hidden_part = masked_loss(invisible, target, views)
        if told is None:
            return Losses(hidden_part, {INVISIBLE: hidden_part})
        seen_part = visible_loss(told, target, views)
        total = hidden_part + self.options.chosen.theta * seen_part
        return Losses(total, {INVISIBLE: hidden_part, VISIBLE: seen_part})

    def _drawn(self, share: Share, draws: torch.Generator) -> Views:
        views = self.masking.draw(share.total, draws).of(share.rows, self.masking.views)
        device = self.accelerator.device
        return Views(views.keep.to(device), views.restore.to(device))

    def measure(self, network: nn.Module) -> dict[str, float]:  # noqa: ARG002
        """Nothing: there are no labels. `vitc probe` judges the checkpoint."""
        return {}

    def write(self, best: Best, described: Mapping[str, Any], checkpoint: FileOutput) -> None:
        """Write the twin, which says how it has learnt; the branches stay behind."""
        twin = self.model.encoder.twin
        twin.history = {PRETRAINING: dict(described), "epoch": best.epoch}
        write_checkpoint(twin, checkpoint)

    def after_epoch(self, report: EpochReport) -> None:
        """Draw crops, masks and what is rebuilt, every few epochs and at the end."""
        if report.epoch % self.options.pictures_every and report.epoch != report.epochs:
            return
        write_file(self.options.shown, self.picture(), force=True)

    @torch.no_grad()
    def picture(self) -> bytes:
        """Crops of a few pictures, their masked views and, of pixels, what is rebuilt, as PNG."""
        patch = self.model.encoder.twin.config.patch_size
        chosen = range(min(_SHOWN, len(self.examples)))
        images = self.examples.__getitems__(chosen)[0].to(self.accelerator.device).float()
        views = self._drawn(Share.whole(len(images)), generator(self.options.seed, 0, _MASKS))
        parts = [("masked", hidden(images, views, patch))]
        if self.options.chosen.target == "pixels":
            self.model.eval()
            predicted, _ = self.model((images - self.mean) / self.std, views)
            parts.append(("rebuilt", rebuilt(images, predicted, views, patch)))
        columns = [("crop", images)]
        columns += [
            (f"view {index + 1}, {what}", each)
            for what, whole in parts
            for index, each in enumerate(whole)
        ]
        return draw([(title, each.cpu()) for title, each in columns])

    def finish(self, ended: Ended) -> PretrainResult:
        """Write history and curve."""
        last = ended.history[-1]
        effective = last.epoch * self.options.chosen.views
        if ended.outputs is not None:
            write_history(
                ended.outputs.history,
                ended.described,
                ended.history,
                {"epoch": last.epoch, "effective_epochs": effective, "loss": last.loss},
            )
            write_curve(ended.outputs.curve, ended.history, {}, ended.best.epoch)
        return PretrainResult(
            checkpoint=self.options.out,
            images=len(self.examples),
            effective_epochs=effective,
            loss=last.loss,
            parts=dict(last.parts),
            history=ended.history,
            seconds=ended.seconds,
            curve=self.options.curve,
            history_file=self.options.history,
            shown=self.options.shown,
        )

    def diverged(self, epoch: int) -> VitcError:
        """Say which learning rate is to be lowered."""
        return VitcError(
            f"The loss stopped being finite in epoch {epoch}.",
            f"Lower --learning-rate, which is {self.options.base_rate} for 256 images.",
        )
