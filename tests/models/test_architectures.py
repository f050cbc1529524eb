"""Every entry of the table holds together, and an entry is all that a new architecture needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vitc import names
from vitc.models import (
    ARCHITECTURES,
    PRESETS,
    Architecture,
    Network,
    NetworkConfig,
    Preprocessing,
    Preset,
    build,
    build_network,
    load,
    random_images,
    random_model,
    save,
)
from vitc.models.account import LayerAccount
from vitc.models.architectures import PAIRS, TASKS, TWINS, account, config_from_shapes, table
from vitc.models.architectures.entry import Shapes
from vitc.models.layers.norm import AxisNorm


def shapes_of(config: NetworkConfig) -> Shapes:
    with torch.device("meta"):
        state = build_network(config).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def test_presets_have_the_names_that_the_command_line_knows() -> None:
    assert names.PRESETS.known == tuple(PRESETS)


@pytest.mark.parametrize("name", list(PRESETS))
@pytest.mark.parametrize("si", [True, False])
def test_shapes_tell_the_configuration_of_every_preset(name: str, si: bool) -> None:
    config = PRESETS[name].config.replace(si=si)
    assert config_from_shapes(shapes_of(config)) == config


@pytest.mark.parametrize("name", list(PRESETS))
@pytest.mark.parametrize("si", [True, False])
def test_the_account_has_the_parameters_of_the_network(name: str, si: bool) -> None:
    config = PRESETS[name].config.replace(si=si)
    with torch.device("meta"):
        network = build_network(config)
    assert account(config).parameters == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", list(PRESETS))
def test_layer_norms_are_told_and_accounted_for(name: str) -> None:
    config = PRESETS[name].config.replace(norm="layer")
    with torch.device("meta"):
        network = build_network(config)
    assert config_from_shapes(shapes_of(config)) == config
    assert account(config).parameters == sum(p.numel() for p in network.parameters())
    assert account(config).binary_weights == account(PRESETS[name].config).binary_weights


def test_every_architecture_and_twin_has_its_network() -> None:
    entries = {**ARCHITECTURES, **TWINS, **PAIRS, **TASKS}
    assert {name: entry.config.__name__ for name, entry in entries.items()} == {
        name: network.__annotations__["config"] for name, network in build.NETWORKS.items()
    }


@pytest.mark.parametrize("entry", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_an_entry_describes_the_networks_that_it_builds(entry: Architecture) -> None:
    for preset in entry.presets:
        shapes = shapes_of(preset.config)
        assert preset.config.arch == entry.name
        assert set(entry.tensors) <= shapes.keys()
        strangers = [e for e in ARCHITECTURES.values() if e is not entry]
        assert not any(set(e.tensors) <= shapes.keys() for e in strangers)
        assert sum(name.endswith(tuple(table.anchors())) for name in shapes) == 1


@dataclass(frozen=True, kw_only=True)
class _TilesConfig(NetworkConfig):
    """Non-overlapping tiles, a float layer each, their mean."""

    arch: str = "tiles"
    width: int = 6

    @property
    def blocks(self) -> int:
        return 1

    @property
    def widest(self) -> int:
        return self.width

    def shape(self) -> str:
        return f"tiles of width {self.width}"

    def replace(self, **changed: int | bool | None) -> _TilesConfig:
        return dataclasses.replace(self, **{k: v for k, v in changed.items() if v is not None})


class _Tiles(Network):
    config: _TilesConfig

    def __init__(self, config: _TilesConfig, *rest: object) -> None:
        super().__init__(config, *rest)
        self.tiles = nn.Conv2d(3, config.width, 4, 4)
        self.norm = AxisNorm(config.width)
        self.head = nn.Linear(config.width, config.classes)

    def forward(self, image: Tensor) -> Tensor:
        self.check_images(image)
        return self.head(self.norm(self.tiles(image).flatten(2)).mean(2))


def _sizes(shapes: Shapes) -> dict[str, int | bool]:
    width = shapes["tiles.weight"][0]
    return {"image_size": 8, "width": width, "classes": shapes["head.weight"][0]}


def _layers(config: _TilesConfig) -> Iterator[LayerAccount]:
    yield LayerAccount("tiles", "float", parameters=49 * config.width, taps=("logits",))


def _no_twin(config: _TilesConfig) -> NetworkConfig:
    raise AssertionError("nothing here asks for a twin")


CONFIG = _TilesConfig(image_size=8, classes=3)
TILES = Architecture(
    name="tiles",
    config=_TilesConfig,
    presets=(Preset("tiles", CONFIG, Preprocessing(resize=8, crop=8), "tiles"),),
    tensors=("tiles.weight",),
    sizes=_sizes,
    layers=_layers,
    twin=_no_twin,
)


@pytest.fixture
def with_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "ARCHITECTURES", {**ARCHITECTURES, "tiles": TILES})
    monkeypatch.setattr(build, "NETWORKS", {**build.NETWORKS, "tiles": _Tiles})


@pytest.mark.usefixtures("with_tiles")
def test_a_checkpoint_of_a_new_architecture_is_written_and_read(tmp_path: Path) -> None:
    model = random_model(CONFIG, 3)
    save(model, tmp_path / "own.safetensors")
    read = load(tmp_path / "own.safetensors")
    assert isinstance(read, _Tiles)
    assert read.config == CONFIG
    images = random_images(CONFIG, 2)
    assert torch.equal(read(images), model(images))


@pytest.mark.usefixtures("with_tiles")
@pytest.mark.parametrize("prefix", ["", "module.", "model.tiles."])
def test_a_bare_state_dict_tells_a_new_architecture(tmp_path: Path, prefix: str) -> None:
    model = random_model(CONFIG, 4)
    bare = {f"{prefix}{name}": tensor for name, tensor in model.state_dict().items()}
    save_file(bare, tmp_path / "bare.safetensors")
    read = load(tmp_path / "bare.safetensors")
    assert isinstance(read, _Tiles)
    assert read.config == CONFIG


@pytest.mark.usefixtures("with_tiles")
def test_the_layers_of_an_account_are_those_of_the_entry() -> None:
    assert [layer.name for layer in account(CONFIG).layers] == ["tiles"]
