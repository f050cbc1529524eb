"""Scores, losses, distillation, towers and recall against the authors' code (golden files)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from vitc.models.retrieval.modes import MODES
from vitc.models.retrieval.scores import late_interaction
from vitc.models.retrieval.towers import SharedTowers, TowerSizes
from vitc.training.retrieval.losses import (
    collapsed_value,
    distillation_entropy,
    perfect_value,
    ranking_loss,
    shrink_loss,
)
from vitc.training.retrieval.recall import ranks, recall


@pytest.fixture
def retrieval(golden: Path) -> Path:
    return golden / "retrieval"


def stated(folder: Path, name: str) -> Any:
    return json.loads((folder / f"{name}.json").read_text())


def close(got: Tensor, wanted: Tensor, limit: float, what: str, *, relative: float = 0.0) -> None:
    torch.testing.assert_close(
        got.double(), wanted.double(), rtol=relative, atol=limit, msg=lambda text: f"{what}: {text}"
    )


def test_golden_scores_and_their_gradients(retrieval: Path) -> None:
    tensors = load_file(retrieval / "scores.safetensors")
    for case in stated(retrieval, "scores")["cases"]:
        name, mode = case["case"], MODES[case["mode"]]
        parts = {
            part: tensors[f"{name}.{part}"].double().requires_grad_()
            for part in ("text", "image", "code_text", "code_image")
            if f"{name}.{part}" in tensors
        }

        def rows(side: str, parts: dict[str, Tensor] = parts) -> Tensor:
            tokens, codes = parts[side], parts.get(f"code_{side}")
            if codes is not None:
                tokens = torch.cat([tokens, codes.expand(len(tokens), -1, -1)], dim=1)
            return F.normalize(tokens, dim=-1)

        text, image = mode.kept(rows("text")), mode.kept(rows("image"))
        assert text.shape[1] == case["kept"]
        assert mode.interactions(case["tokens"], case["codes"]) == case["interactions"]
        scores = late_interaction(image, text)
        close(scores, tensors[f"{name}.scores"], 1e-6, name)
        words = tensors[f"{name}.text_mask"].bool()
        counted = mode.kept(F.pad(words, (0, case["codes"]), value=True)[..., None])[..., 0]
        left_out = late_interaction(image, text, counted)
        close(left_out, tensors[f"{name}.scores_pads_left_out_ours"], 1e-6, name)
        loss = ranking_loss(scores, case["margin"])
        close(loss, tensors[f"{name}.loss"], 1e-6, name)
        loss.backward()
        for part, tensor in parts.items():
            assert tensor.grad is not None
            close(tensor.grad, tensors[f"{name}.grad_{part}"], 1e-6, f"{name} {part}")


def test_golden_ranking_loss(retrieval: Path) -> None:
    tensors = load_file(retrieval / "ranking.safetensors")
    for case in stated(retrieval, "ranking")["cases"]:
        name, margin = case["case"], case["margin"]
        scores = tensors[f"{name}.scores"].double().requires_grad_()
        loss = ranking_loss(scores, margin)
        loss.backward()
        close(loss, tensors[f"{name}.loss"], 0.0, name, relative=1e-6)
        assert scores.grad is not None
        close(scores.grad, tensors[f"{name}.grad"], 1e-6, name, relative=1e-6)
        assert collapsed_value(case["batch"], margin) == pytest.approx(case["collapsed_value"])
        assert perfect_value(case["batch"], margin) == pytest.approx(case["floor_value"])


def test_golden_distillation(retrieval: Path) -> None:
    tensors = load_file(retrieval / "distill.safetensors")
    for case in stated(retrieval, "distill")["cases"]:
        name, scales = case["case"], (float(case["Tw"]), float(case["Sw"]))
        teacher = tensors[f"{name}.teacher"].double().requires_grad_()
        student = tensors[f"{name}.student"].double().requires_grad_()
        loss = shrink_loss(teacher, student, teacher_scale=scales[0], student_scale=scales[1])
        loss.backward()
        close(loss, tensors[f"{name}.loss_log_softmax"], 0.0, name, relative=1e-6)
        assert teacher.grad is None
        assert student.grad is not None
        wanted = tensors[f"{name}.grad_student_log_softmax"]
        close(student.grad, wanted, 1e-6, name, relative=1e-6)
        least = distillation_entropy(teacher, scales[0])
        close(least, tensors[f"{name}.teacher_entropy"], 1e-9, name, relative=1e-6)


def official(tensors: dict[str, Tensor], prefix: str, encoder: str) -> dict[str, Tensor]:
    """What the official names hold, by the names of `SharedTowers`; those that there are."""
    plain = {
        "words.word.weight": "encoder.embeddings.word_embeddings.weight",
        "words.position.weight": "encoder.embeddings.position_embeddings.weight",
        "words.segment.weight": "encoder.embeddings.token_type_embeddings.weight",
        "words.norm.weight": "encoder.embeddings.LayerNorm.weight",
        "words.norm.bias": "encoder.embeddings.LayerNorm.bias",
        "regions.project.weight": "fc.weight",
        "regions.project.bias": "fc.bias",
        "regions.norm.weight": "norm.weight",
        "regions.norm.bias": "norm.bias",
        "text_codes.table": "poly_code_embeddings_t.weight",
        "image_codes.table": "poly_code_embeddings_v.weight",
    }
    parts = {
        "proj": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "fc1": "intermediate.dense",
        "fc2": "output.dense",
        "norm2": "output.LayerNorm",
    }
    found = {
        own: tensors[f"{prefix}{name}"]
        for own, name in plain.items()
        if f"{prefix}{name}" in tensors
    }
    for layer in range(3):
        theirs = f"{prefix}{encoder}.encoder.layer.{layer}."
        for kind in ("weight", "bias"):
            own = f"encoder.layers.{layer}."
            attention = [f"{theirs}attention.self.{p}.{kind}" for p in ("query", "key", "value")]
            found[f"{own}qkv.{kind}"] = torch.cat([tensors[name] for name in attention])
            found |= {
                f"{own}{part}.{kind}": tensors[f"{theirs}{name}.{kind}"]
                for part, name in parts.items()
            }
    return found


def towers_of(sizes: TowerSizes, weights: dict[str, Tensor]) -> SharedTowers:
    towers = SharedTowers(sizes).double().eval()
    codes = {} if sizes.codes else {f"{side}_codes.table" for side in ("text", "image")}
    given = {name: tensor.double() for name, tensor in weights.items() if name not in codes}
    missing, _ = towers.load_state_dict(given, strict=False)
    assert set(missing) == set(codes)
    return towers


def sizes_of(config: dict[str, Any], *, codes: bool) -> TowerSizes:
    return TowerSizes(
        width=config["width"],
        heads=config["heads"],
        hidden=config["feed_forward"],
        layers=config["layers_that_run"],
        vocabulary=config["vocabulary"],
        positions=config["positions"],
        region_width=config["region_width"],
        codes=config["codes"] if codes else 0,
    )


TAUGHT = {"shrinktobase": ("inflate", "base", 16.0), "shrinktofast": ("base", "fast", 2.0)}
ENCODERS = {"shrinktobase": "encoder2", "shrinktofast": "encoder3"}


def test_golden_towers_and_their_gradients(retrieval: Path) -> None:
    tensors, index = load_file(retrieval / "towers.safetensors"), stated(retrieval, "towers")
    words, config = tensors["input_ids"].long(), index["config"]
    for case in index["modes"]:
        name = case["mode"]
        taught = TAUGHT.get(name)
        mode = MODES[name if taught is None else taught[1]]
        weights = official(tensors, "weight.", ENCODERS.get(name, "encoder"))
        towers = towers_of(sizes_of(config, codes=mode.codes), weights)
        regions = tensors["regions"].double().requires_grad_()
        text, image = towers.text(words), towers.image(regions)
        close(text, tensors[f"{name}.text"], 1e-5, name)
        close(image, tensors[f"{name}.image"], 1e-5, name)
        scores = late_interaction(mode.kept(image), mode.kept(text))
        close(scores, tensors[f"{name}.scores"], 1e-5, name)
        if taught is None:
            loss = ranking_loss(scores, case["margin"])
        else:
            teacher_mode = MODES[taught[0]]
            # The teacher of the first step is the inflated model; of the second, the shrunken base.
            encoder = "encoder" if teacher_mode.codes else "encoder2"
            teacher = towers_of(
                sizes_of(config, codes=teacher_mode.codes), official(tensors, "weight.", encoder)
            )
            with torch.no_grad():
                told = late_interaction(teacher.image(regions), teacher.text(words))
            close(told, tensors[f"{name}.teacher_scores"], 1e-5, name)
            loss = shrink_loss(told, scores, teacher_scale=taught[2], student_scale=16.0)
        close(loss, tensors[f"{name}.loss"], 1e-5, name)
        loss.backward()
        assert regions.grad is not None
        close(regions.grad, tensors[f"{name}.grad.regions"], 1e-5, name)
        given = official(tensors, f"{name}.grad.", ENCODERS.get(name, "encoder"))
        moved = dict(towers.named_parameters())
        assert given.keys() <= moved.keys()
        for part, gradient in given.items():
            assert moved[part].grad is not None, f"{name} {part}"
            close(moved[part].grad, gradient, 1e-5, f"{name} {part}")


def test_golden_recall(retrieval: Path) -> None:
    tensors = load_file(retrieval / "recall.safetensors")
    for case in stated(retrieval, "recall")["cases"]:
        name = case["case"]
        scores = tensors[f"{name}.scores"]
        owner = torch.arange(scores.shape[1]) // 5
        places = ranks(scores, owner)
        for got, key in zip(places, ("rank_image_to_text", "rank_text_to_image"), strict=True):
            assert torch.equal(got, tensors[f"{name}.{key}"].long()), name
        for got, key in zip(recall(scores, owner), ("image_to_text", "text_to_image"), strict=True):
            assert vars(got) == pytest.approx(case[key])
