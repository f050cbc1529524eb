"""Programs whose checkpoints become twins: their names of tensors, and what their files state.

A source is an entry of `SOURCES`. Constants of norms are the source's own where its file does not
state one: they are in no state dict, and one that differs moves a logit by 1e-6 and more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor

from vitc.errors import VitcError
from vitc.models.described import shown
from vitc.models.twins.names import Rename

__all__ = ["SOURCES", "Source"]

Stated = Mapping[str, Any]
"""What a configuration file says, as JSON values."""


@dataclass(frozen=True)
class Source:
    """A program that writes checkpoints of one architecture.

    Attributes:
        name: For people.
        twin: Key of the twin, in `vitc.models.architectures.TWINS`.
        anchor: A tensor of every such checkpoint; what stands before its name is a prefix.
        tells: Tensors that together tell it from all others.
        lacks: Parts of names that it never has.
        names: Its names of tensors.
        skipped: Parts of names that nothing is computed with, to what they are.
        settings: What its configuration file states, to fields of the twin's configuration.
        assumed: Fields that neither shapes nor the file state.
        head_width: Channels of an attention head where the file does not state the heads.
        heads_last: Whether the head varies fastest in the context that ``attn.proj`` reads.
    """

    name: str
    twin: str
    anchor: str
    tells: tuple[str, ...]
    names: tuple[Rename, ...]
    settings: Callable[[Stated], dict[str, Any]]
    lacks: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    assumed: Mapping[str, Any] = field(default_factory=dict)
    head_width: int = 64
    heads_last: bool = False

    def fits(self, names: Set[str]) -> bool:
        """Whether a state dict is of this source, by its names."""
        return set(self.tells) <= names and not any(
            part in name for part in self.lacks for name in names
        )

    def why_skipped(self, name: str) -> str | None:
        """What a tensor is that no twin needs; None for all others."""
        return next((what for part, what in self.skipped.items() if part in name), None)

    def reordered(self, tensors: dict[str, Tensor], heads: Callable[[str], int]) -> None:
        """Bring the columns of projections into the order of the twin: head by head.

        Args:
            tensors: By the names of the twin; changed in place.
            heads: Name of a tensor to the heads of its attention.
        """
        if not self.heads_last:
            return
        for name, weight in tensors.items():
            if name.endswith(".attn.proj.weight") and weight.ndim == 2:
                h = heads(name)
                if weight.shape[1] % h == 0:
                    by_head = torch.unflatten(weight, 1, (-1, h)).transpose(1, 2)
                    tensors[name] = by_head.flatten(1).contiguous()


def _gelu(stated: Stated) -> None:
    act = stated.get("hidden_act", "gelu")
    if act != "gelu":
        raise VitcError(
            f"The configuration states the activation {shown(act)}; twins have GELU by erf (gelu).",
            "Choose a model with gelu.",
        )


def _pair(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else (value, value)


def _taken(stated: Stated, fields: Mapping[str, str]) -> dict[str, Any]:
    """Fields by the keys of a configuration file; lists are sizes of stages."""
    found = {ours: stated[key] for key, ours in fields.items() if stated.get(key) is not None}
    return {ours: tuple(v) if isinstance(v, list) else v for ours, v in found.items()}


def _hf_vit(stated: Stated) -> dict[str, Any]:
    _gelu(stated)
    return _taken(
        stated,
        {
            "image_size": "image_size",
            "patch_size": "patch_size",
            "hidden_size": "width",
            "num_hidden_layers": "depth",
            "num_attention_heads": "heads",
            "intermediate_size": "hidden",
            "layer_norm_eps": "bn_eps",
        },
    )


def _hf_swin(stated: Stated) -> dict[str, Any]:
    _gelu(stated)
    found = _taken(
        stated,
        {
            "image_size": "image_size",
            "patch_size": "patch_size",
            "depths": "depths",
            "num_heads": "heads",
            "layer_norm_eps": "bn_eps",
        },
    )
    if "window_size" in stated:
        found["window"] = _pair(stated["window_size"])
    return found


def _hf_pvt(stated: Stated) -> dict[str, Any]:
    _gelu(stated)
    if stated.get("strides", stated.get("patch_sizes")) != stated.get("patch_sizes"):
        raise VitcError(
            f"The configuration states patches {shown(stated.get('patch_sizes'))} at strides "
            f"{shown(stated['strides'])}; the patches of a PVT do not overlap.",
            "Choose a PVT of the first version.",
        )
    found = _taken(
        stated,
        {
            "image_size": "image_size",
            "patch_sizes": "patch_sizes",
            "hidden_sizes": "widths",
            "depths": "depths",
            "num_attention_heads": "heads",
            "sequence_reduction_ratios": "reductions",
            "layer_norm_eps": "bn_eps",
        },
    )
    if "bn_eps" in found:
        found["side_eps"] = found["bn_eps"]
    return found


def _timm(fields: Mapping[str, str]) -> Callable[[Stated], dict[str, Any]]:
    """Arguments of timm's models, alone or as the ``model_args`` of a file of the Hub."""

    def settings(stated: Stated) -> dict[str, Any]:
        arguments = {**stated, **_mapping(stated, "model_args")}
        pooled = arguments.get("global_pool")
        found = _taken(arguments, {"img_size": "image_size", "norm_layer_eps": "bn_eps", **fields})
        if "image_size" not in found:
            shown_size = _mapping(stated, "pretrained_cfg").get("input_size")
            if isinstance(shown_size, list) and len(shown_size) == 3:
                found["image_size"] = tuple(shown_size[1:])
        if isinstance(found.get("image_size"), tuple) and len(set(found["image_size"])) == 1:
            found["image_size"] = found["image_size"][0]
        if "window_size" in arguments and "window" in fields.values():
            found["window"] = _pair(arguments["window_size"])
        if "pad_type" in fields.values() and "pad_type" not in found:
            architecture = stated.get("architecture")
            if isinstance(architecture, str):
                found["pad_type"] = "same" if "_jx" in architecture else ""
        if "width" in fields.values() and pooled not in (None, "token"):
            raise VitcError(
                f"The configuration states the pooling {shown(pooled)}; the twin of DeiT reads its "
                "class token (token).",
                "Choose a model with a class token.",
            )
        return found

    return settings


def _mapping(stated: Stated, key: str) -> Mapping[str, Any]:
    value = stated.get(key)
    return value if isinstance(value, Mapping) else {}


def _linears(theirs: str, ours: str, pairs: Mapping[str, str]) -> tuple[Rename, ...]:
    return tuple(Rename(f"{theirs}.{a}", f"{ours}.{b}") for a, b in pairs.items())


def _cut(theirs: str, ours: str, *parts: str) -> tuple[Rename, ...]:
    return tuple(
        Rename(f"{theirs}.{part}", ours, index, len(parts)) for index, part in enumerate(parts)
    )


_TIMM_BLOCK: Final = {
    name: name for name in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
}

_HF_BLOCK: Final = {
    "layernorm_before": "norm1",
    "attention.output.dense": "attn.proj",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
"""Files of any version; those of version 5 are converted when they are saved."""

_HF5_BLOCK: Final = {
    "layernorm_before": "norm1",
    "attention.o_proj": "attn.proj",
    "layernorm_after": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
"""Of a state dict that was saved from the memory of version 5."""


def _hf_vit_names(model: str) -> tuple[Rename, ...]:
    old, new, ours = f"{model}.encoder.layer.{{i}}", f"{model}.layers.{{i}}", "blocks.{i}"
    qkv = f"{ours}.attn.qkv"
    return (
        Rename(f"{model}.embeddings.cls_token", "cls_token"),
        Rename(f"{model}.embeddings.distillation_token", "dist_token"),
        Rename(f"{model}.embeddings.position_embeddings", "pos_embed"),
        Rename(f"{model}.embeddings.patch_embeddings.projection", "patch_embed.proj"),
        *_linears(old, ours, _HF_BLOCK),
        *_cut(f"{old}.attention.attention", qkv, "query", "key", "value"),
        *_linears(new, ours, _HF5_BLOCK),
        *_cut(f"{new}.attention", qkv, "q_proj", "k_proj", "v_proj"),
        Rename(f"{model}.layernorm", "norm"),
        Rename("classifier", "head"),
        Rename("cls_classifier", "head"),
        Rename("distillation_classifier", "head_dist"),
    )


def _hf_swin_names() -> tuple[Rename, ...]:
    theirs, ours = "swin.encoder.layers.{s}.blocks.{i}", "stages.{s}.blocks.{i}"
    table = "relative_position_bias_table"
    return (
        Rename("swin.embeddings.patch_embeddings.projection", "patch_embed.proj"),
        Rename("swin.embeddings.norm", "patch_embed.norm"),
        *_linears(theirs, ours, _HF_BLOCK),
        *_cut(f"{theirs}.attention.self", f"{ours}.attn.qkv", "query", "key", "value"),
        Rename(f"{theirs}.attention.self.{table}", f"{ours}.attn.{table}"),
        *_linears(theirs, ours, _HF5_BLOCK),
        *_cut(f"{theirs}.attention", f"{ours}.attn.qkv", "q_proj", "k_proj", "v_proj"),
        Rename(f"{theirs}.attention.relative_position_bias.{table}", f"{ours}.attn.{table}"),
        Rename("swin.encoder.layers.{s}.downsample.norm", "stages.{s+1}.merge.norm"),
        Rename("swin.encoder.layers.{s}.downsample.reduction", "stages.{s+1}.merge.reduction"),
        Rename("swin.layernorm", "norm"),
        Rename("classifier", "head"),
    )


def _hf_pvt_names() -> tuple[Rename, ...]:
    theirs, ours = "pvt.encoder.block.{s}.{i}", "stages.{s}.blocks.{i}"
    before = "pvt.encoder.patch_embeddings.{s}"
    attention = f"{theirs}.attention"
    return (
        Rename(f"{before}.position_embeddings", "stages.{s}.pos_embed"),
        Rename(f"{before}.cls_token", "stages.{s}.cls_token"),
        Rename(f"{before}.projection", "stages.{s}.patch_embed.proj"),
        Rename(f"{before}.layer_norm", "stages.{s}.patch_embed.norm"),
        Rename(f"{theirs}.layer_norm_1", f"{ours}.norm1"),
        Rename(f"{attention}.self.query", f"{ours}.attn.q"),
        *_cut(f"{attention}.self", f"{ours}.attn.kv", "key", "value"),
        Rename(f"{attention}.self.sequence_reduction", f"{ours}.attn.sr"),
        Rename(f"{attention}.self.layer_norm", f"{ours}.attn.norm"),
        Rename(f"{attention}.output.dense", f"{ours}.attn.proj"),
        Rename(f"{theirs}.layer_norm_2", f"{ours}.norm2"),
        Rename(f"{theirs}.mlp.dense1", f"{ours}.mlp.fc1"),
        Rename(f"{theirs}.mlp.dense2", f"{ours}.mlp.fc2"),
        Rename("pvt.encoder.layer_norm", "norm"),
        Rename("classifier", "head"),
    )


def _pvt_names() -> tuple[Rename, ...]:
    theirs, ours = "block{s+1}.{i}", "stages.{s}.blocks.{i}"
    parts = ("norm1", "attn.q", "attn.kv", "attn.sr", "attn.norm", "attn.proj", "norm2")
    same = {name: name for name in (*parts, "mlp.fc1", "mlp.fc2")}
    return (
        Rename("pos_embed{s+1}", "stages.{s}.pos_embed"),
        Rename("patch_embed{s+1}.proj", "stages.{s}.patch_embed.proj"),
        Rename("patch_embed{s+1}.norm", "stages.{s}.patch_embed.norm"),
        Rename("cls_token", "stages.3.cls_token"),  # the last of the four that they have
        *_linears(theirs, ours, same),
        *_same("norm", "head"),
    )


def _same(*names: str) -> tuple[Rename, ...]:
    return tuple(Rename(name, name) for name in names)


def _swin_names(into: str, head: str) -> tuple[Rename, ...]:
    """Names of Swin's authors and of timm, who differ in the stage that merging belongs to."""
    theirs, ours = "layers.{s}.blocks.{i}", "stages.{s}.blocks.{i}"
    table = "attn.relative_position_bias_table"
    return (
        *_same("patch_embed.proj", "patch_embed.norm"),
        *_linears(theirs, ours, {**_TIMM_BLOCK, table: table}),
        Rename("layers.{s}.downsample.norm", f"stages.{into}.merge.norm"),
        Rename("layers.{s}.downsample.reduction", f"stages.{into}.merge.reduction"),
        *_same("norm"),
        Rename(head, "head"),
    )


_OF_PRETRAINING: Final = {"mask_token": "the token of masked patches, of pre-training"}
_POOLER: Final = {".pooler.": "the pooler, which no class is told from"}
_OF_SIZES: Final = {
    "relative_position_index": "tables that follow from the window",
    "attn_mask": "tables that follow from the window",
}
_TIMM_SWIN: Final = {"depths": "depths", "num_heads": "heads", "window_size": "window"}

_ENTRIES: Final = (
    Source(
        name="Hugging Face ViT",
        twin="float-deit",
        anchor="vit.embeddings.patch_embeddings.projection.weight",
        tells=("vit.embeddings.cls_token",),
        names=_hf_vit_names("vit"),
        settings=_hf_vit,
        skipped={**_OF_PRETRAINING, **_POOLER},
        assumed={"bn_eps": 1e-12},
    ),
    Source(
        name="Hugging Face DeiT",
        twin="float-deit",
        anchor="deit.embeddings.patch_embeddings.projection.weight",
        tells=("deit.embeddings.cls_token",),
        names=_hf_vit_names("deit"),
        settings=_hf_vit,
        skipped={**_OF_PRETRAINING, **_POOLER},
        assumed={"bn_eps": 1e-12},
    ),
    Source(
        name="Hugging Face Swin",
        twin="float-swin",
        anchor="swin.embeddings.patch_embeddings.projection.weight",
        tells=("swin.embeddings.patch_embeddings.projection.weight",),
        names=_hf_swin_names(),
        settings=_hf_swin,
        skipped={**_OF_PRETRAINING, **_OF_SIZES},
        # Norms beside the blocks have PyTorch's constant whatever the configuration states.
        assumed={"bn_eps": 1e-5, "side_eps": 1e-5},
    ),
    Source(
        name="Hugging Face PVT",
        twin="float-pvt",
        anchor="pvt.encoder.patch_embeddings.0.projection.weight",
        tells=("pvt.encoder.block.0.0.attention.self.query.weight",),
        names=_hf_pvt_names(),
        settings=_hf_pvt,
        assumed={"bn_eps": 1e-6, "side_eps": 1e-6},
    ),
    Source(
        name="PVT's authors",
        twin="float-pvt",
        anchor="head.weight",
        tells=("pos_embed1", "block1.0.attn.q.weight"),
        names=_pvt_names(),
        settings=_timm(
            {
                "embed_dims": "widths",
                "depths": "depths",
                "num_heads": "heads",
                "sr_ratios": "reductions",
            }
        ),
        assumed={"bn_eps": 1e-6, "side_eps": 1e-5},
    ),
    Source(
        name="timm DeiT or ViT",
        twin="float-deit",
        anchor="head.weight",
        tells=("cls_token", "pos_embed", "blocks.0.norm1.weight", "blocks.0.attn.qkv.weight"),
        lacks=(".attn.moveq.",),
        names=(
            *_same("cls_token", "dist_token", "pos_embed", "patch_embed.proj"),
            *_linears("blocks.{i}", "blocks.{i}", _TIMM_BLOCK),
            *_same("norm", "head", "head_dist"),
        ),
        settings=_timm(
            {
                "patch_size": "patch_size",
                "embed_dim": "width",
                "depth": "depth",
                "num_heads": "heads",
            }
        ),
        assumed={"bn_eps": 1e-6},
    ),
    Source(
        name="Swin's authors",
        twin="float-swin",
        anchor="head.weight",
        tells=("layers.0.blocks.0.attn.relative_position_bias_table",),
        lacks=("head.fc.",),
        names=_swin_names("{s+1}", "head"),
        settings=_timm(_TIMM_SWIN),
        skipped=_OF_SIZES,
        assumed={"bn_eps": 1e-5, "side_eps": 1e-5},
    ),
    Source(
        name="timm Swin",
        twin="float-swin",
        anchor="head.fc.weight",
        tells=("layers.0.blocks.0.attn.relative_position_bias_table",),
        names=_swin_names("{s}", "head.fc"),
        settings=_timm(_TIMM_SWIN),
        skipped=_OF_SIZES,
        assumed={"bn_eps": 1e-5, "side_eps": 1e-5},
    ),
    Source(
        name="timm NesT",
        twin="float-nest",
        anchor="head.weight",
        tells=("levels.0.pos_embed", "levels.0.transformer_encoder.0.attn.qkv.weight"),
        names=(
            *_same("patch_embed.proj"),
            Rename("levels.{s}.pos_embed", "stages.{s}.pos_embed"),
            Rename("levels.{s}.pool.conv", "stages.{s}.pool.conv"),
            Rename("levels.{s}.pool.norm", "stages.{s}.pool.norm"),
            *_linears("levels.{s}.transformer_encoder.{i}", "stages.{s}.blocks.{i}", _TIMM_BLOCK),
            *_same("norm", "head"),
        ),
        settings=_timm(
            {
                "patch_size": "patch_size",
                "embed_dims": "widths",
                "depths": "depths",
                "num_heads": "heads",
                "pad_type": "pad_type",
            }
        ),
        assumed={"bn_eps": 1e-6, "side_eps": 1e-6},
        head_width=32,
        heads_last=True,
    ),
)

SOURCES: Final[Mapping[str, Source]] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
