"""What the probes of frozen features find, on data whose answer is known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitc.errors import VitcError
from vitc.models import Preprocessing, build_network, random_images, save
from vitc.models.architectures import twin_preset
from vitc.models.twins.twin import Twin
from vitc.training.probes.dense import score_of
from vitc.training.probes.features import encode, frozen_twin
from vitc.training.probes.linear import LinearHead, Schedule, fit, normalised
from vitc.training.probes.masks import find_masked
from vitc.training.probes.neighbours import nearest_classes
from vitc.training.probes.options import ProbeOptions
from vitc.training.probes.run import probe

MICRO = ("micro", "micro-swin", "micro-pvt", "micro-nest")


def chance(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def twin_of(name: str) -> Twin:
    torch.manual_seed(4)
    chosen = twin_preset(name)
    twin = build_network(chosen.config, chosen.preprocessing).eval()
    assert isinstance(twin, Twin)
    return twin


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save(twin_of("micro"), tmp_path / "twin.safetensors")
    return tmp_path / "twin.safetensors"


@pytest.mark.parametrize("name", MICRO)
@torch.no_grad()
def test_features_of_every_twin_are_what_its_head_reads(name: str) -> None:
    twin = twin_of(name)
    images = random_images(twin.config, 3, seed=1)
    tokens = twin.trunk(images)
    on_map = twin.on_map(tokens)
    assert on_map.ndim == 4
    read = twin.norm(tokens)[:, 0] if name in ("micro", "micro-pvt") else None
    read = twin.norm(on_map).mean(dim=(1, 2)) if read is None else read
    torch.testing.assert_close(twin.head(read), twin(images))
    pooled = encode(twin, [images[:2], images[2:]], pooled=True)
    torch.testing.assert_close(pooled, on_map.mean(dim=(1, 2)))


@pytest.mark.parametrize("name", MICRO)
def test_places_of_a_map_are_where_they_are_in_the_image(name: str) -> None:
    twin = twin_of(name)
    image = random_images(twin.config, 1, seed=2).requires_grad_()
    on_map = twin.on_map(twin.trunk(image))
    rows, columns = on_map.shape[1:3]
    # Attention mixes all places in part, so what is largest counts.
    for row, column in ((0, columns - 1), (rows - 1, 0), (rows - 1, columns - 1)):
        (grad,) = torch.autograd.grad(
            on_map[0, row, column].square().sum(), image, retain_graph=True
        )
        reach = torch.nn.functional.adaptive_avg_pool2d(grad.abs().sum(1), (rows, columns))[0]
        assert divmod(int(reach.argmax()), columns) == (row, column)


def test_a_linear_probe_tells_classes_that_lie_apart_whatever_the_scale_of_channels() -> None:
    centres = torch.randn(5, 12, generator=chance(0))
    targets = torch.randint(0, 5, (203,), generator=chance(1))
    spread = torch.logspace(-2, 1, 12)
    raw = (centres[targets] + 0.3 * torch.randn(203, 12, generator=chance(2))) * spread + 5
    features = normalised(raw)
    told: list[float] = []
    head = fit(
        features,
        targets,
        5,
        Schedule(40, 64, 0.5),
        seed=3,
        done=lambda _, loss: told.append(loss),
    )
    assert len(told) == 40
    assert told[-1] < 0.3 * told[0]
    assert (head(features).argmax(1) == targets).float().mean() > 0.95
    again = fit(features, targets, 5, Schedule(40, 64, 0.5), seed=3)
    assert torch.equal(again.linear.weight, head.linear.weight)
    other = fit(features, targets, 5, Schedule(40, 64, 0.5), seed=4)
    assert not torch.equal(other.linear.weight, head.linear.weight)


def test_the_head_begins_small_and_has_no_affine_norm() -> None:
    head = LinearHead(64, 30, chance(5))
    assert {name for name, _ in head.named_parameters()} == {"linear.weight", "linear.bias"}
    assert float(head.linear.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert head.norm.eps == 1e-6


def test_a_probe_that_diverges_says_so() -> None:
    features = torch.randn(8, 4, generator=chance(6))
    features[2, 1] = math.inf
    with pytest.raises(VitcError, match="stopped being finite"):
        fit(features, torch.arange(8) % 2, 2, Schedule(3, 4, 0.1), seed=0)


def test_neighbours_vote_by_their_cosine() -> None:
    known = torch.tensor([[1.0, 0.0], [10.0, 1.0], [0.0, 3.0], [-1.0, 4.0]])
    targets = torch.tensor([2, 2, 0, 1])
    asked = torch.tensor([[50.0, 1.0], [-0.02, 0.1], [0.0, 0.001]])
    guesses = nearest_classes(known, targets, asked, neighbours=2, classes=3)
    assert guesses.tolist() == [2, 1, 0]


def test_neighbours_equal_those_found_one_by_one() -> None:
    known, asked = (torch.randn(n, 6, generator=chance(n)) for n in (60, 700))
    targets = torch.randint(0, 4, (60,), generator=chance(7))
    guesses = nearest_classes(known, targets, asked, neighbours=7, classes=4)
    for row in (0, 1, 511, 512, 699):
        cosine = torch.cosine_similarity(asked[row][None].double(), known.double())
        votes = np.zeros(4)
        for index in cosine.argsort(descending=True)[:7].tolist():
            votes[targets[index]] += np.exp(float(cosine[index]) / 0.07)
        assert int(guesses[row]) == int(votes.argmax())


def test_intersection_by_union_is_counted_from_pixels() -> None:
    counts = torch.zeros(4, 4, dtype=torch.int64)
    counts[0, 0], counts[0, 1], counts[1, 1], counts[2, 0] = 6, 2, 3, 1
    miou, right, iou = score_of(counts)
    assert iou == (6 / 9, 3 / 5, 0.0, None)
    assert miou == pytest.approx((6 / 9 + 3 / 5) / 3)
    assert right == 9 / 12
    with pytest.raises(VitcError, match="all void"):
        score_of(torch.zeros(3, 3, dtype=torch.int64))


def halves(folder: Path, masks: Path | None, count: int, seed: int) -> None:
    """Pictures whose left or right half is light; masks say where, 9 is void."""
    random = np.random.default_rng(seed)
    for path in (folder, masks):
        if path is not None:
            path.mkdir(parents=True)
    for index in range(count):
        light = np.zeros((40, 56), bool)
        light[:, 28:] = True
        if index % 2:
            light = ~light
        pixels = random.integers(0, 60, (40, 56, 3)) + 180 * light[..., None]
        if masks is None:
            alpha = (light * 255)[..., None]
            pixels = np.concatenate((pixels, alpha), axis=-1)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index:02d}.png")
        if masks is not None:
            told = light.astype(np.uint8)
            told[:3] = 9
            Image.fromarray(told).save(masks / f"{index:02d}.png")


def dense_options(checkpoint: Path, data: Path, **changes: object) -> ProbeOptions:
    given = {"linear": False, "knn": False, "dense": True, "epochs": 30, "batch_size": 4}
    return ProbeOptions(checkpoint, str(data), **{**given, "void": 9, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["train", "masks", "alpha"])
def test_a_dense_probe_finds_halves_in_every_form_of_folder(
    form: str, checkpoint: Path, tmp_path: Path
) -> None:
    data = tmp_path / "dense data"
    if form == "train":
        halves(data / "train", data / "trainannot", 9, 1)
        halves(data / "val", data / "valannot", 4, 2)
    elif form == "masks":
        halves(data / "images", data / "masks", 13, 3)
    else:
        halves(data / "images", None, 13, 4)
    found = probe(dense_options(checkpoint, data)).dense
    assert found is not None
    assert found.map == (4, 4)
    assert len(found.iou) == 2
    assert found.miou > 0.8
    assert found.miou == pytest.approx(sum(v for v in found.iou if v is not None) / 2)
    assert (found.train_images, found.test_images) == ((9, 4) if form == "train" else (11, 2))


def test_void_pixels_are_neither_learnt_nor_judged(checkpoint: Path, tmp_path: Path) -> None:
    halves(tmp_path / "d" / "images", tmp_path / "d" / "masks", 6, 5)
    judged = probe(dense_options(checkpoint, tmp_path / "d", epochs=2)).dense
    with_void = probe(dense_options(checkpoint, tmp_path / "d", epochs=2, void=-1)).dense
    assert judged is not None
    assert with_void is not None
    assert (len(judged.iou), len(with_void.iou)) == (2, 10)
    assert with_void.iou[9] is not None


def test_masks_of_two_colours_count_as_classes_0_and_1(tmp_path: Path) -> None:
    halves(tmp_path / "images", tmp_path / "masks", 5, 6)
    told = np.tile(np.array([False, True]), (40, 28))
    Image.fromarray(told).save(tmp_path / "masks" / "00.png")
    train, test = find_masked(tmp_path, Preprocessing(resize=32, crop=32))
    assert np.array_equal(train.mask(0), told)
    assert train.mask(0, (10, 14)).shape == (10, 14)
    assert len(test) == 1


def broken_size(folder: Path) -> None:
    Image.new("L", (9, 9)).save(folder / "masks" / "01.png")


def broken_colour(folder: Path) -> None:
    Image.new("RGB", (56, 40)).save(folder / "masks" / "01.png")


def broken_file(folder: Path) -> None:
    (folder / "masks" / "01.png").write_bytes(b"\x89PNG no")


def missing(folder: Path) -> None:
    (folder / "masks" / "02.png").unlink()


def double(folder: Path) -> None:
    Image.new("RGB", (56, 40)).save(folder / "images" / "02.jpg")


def few(folder: Path) -> None:
    for index in range(1, 6):
        (folder / "images" / f"{index:02d}.png").unlink()


def plain(folder: Path) -> None:
    for index in range(6):
        told = np.full((40, 56), 9 if index % 2 else 0, np.uint8)
        Image.fromarray(told).save(folder / "masks" / f"{index:02d}.png")


def opaque(folder: Path) -> None:
    (folder / "masks").rename(folder / "other")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (broken_size, r"masks/01.png is 9 x 9, its picture 56 x 40"),
        (broken_colour, r"masks/01.png is of mode RGB"),
        (broken_file, r"masks/01.png cannot be read"),
        (missing, r"images/02.png has no mask"),
        (double, r"02.jpg and .*02.png differ in the suffix"),
        (few, r"has 1 pictures with masks"),
        (plain, r"have 1 class beside void, 9"),
        (opaque, r"has no masks"),
    ],
)
def test_a_folder_of_masks_that_does_not_hold_is_refused_by_name(
    harm, said: str, checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "d"
    halves(folder / "images", folder / "masks", 6, 7)
    harm(folder)
    with pytest.raises(VitcError, match=said):
        probe(dense_options(checkpoint, folder))


def test_what_cannot_be_probed_is_said(class_folders: Path, checkpoint: Path) -> None:
    with pytest.raises(VitcError, match="digits have no masks"):
        probe(dense_options(checkpoint, Path("digits")))
    with pytest.raises(VitcError, match="nothing to probe"):
        ProbeOptions(checkpoint, linear=False, knn=False)
    with pytest.raises(VitcError, match="batch_size is 1"):
        ProbeOptions(checkpoint, batch_size=1)
    with pytest.raises(VitcError, match="18 images to look among for 19"):
        probe(ProbeOptions(checkpoint, str(class_folders), neighbours=19))


def test_probes_of_class_folders_judge_by_the_images_kept_for_testing(
    class_folders: Path, checkpoint: Path
) -> None:
    options = ProbeOptions(checkpoint, str(class_folders), epochs=20, neighbours=3)
    told: list[str] = []
    result = probe(options, told.append)
    assert result.linear is not None
    assert result.knn is not None
    assert (result.linear.train_images, result.linear.test_images) == (18, 4)
    assert result.linear.accuracy >= 0.8
    assert result.knn.accuracy >= 0.8
    assert result.checkpoint_sha256 == frozen_twin(checkpoint).source_sha256
    assert any("epoch 20/20" in line for line in told)
    again = probe(options)
    assert (again.linear, again.knn) == (result.linear, result.knn)
