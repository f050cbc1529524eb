from __future__ import annotations

import dataclasses
from itertools import product

import pytest
import torch

from vitc.models import PRESETS, ModelConfig, binary_modules, build_network
from vitc.models.account import OWN
from vitc.models.architectures import account
from vitc.models.schemes import SCHEMES

# Section 5 of the specification, as printed: params M, binary weights M, fp32 MB, folded MB,
# binary GMAC, fp MMAC.
TABLE = [
    ("deit-tiny", 2, False, "3.98", "3.54", "15.96", "2.22", "0.876", "29.1"),
    ("deit-tiny", 2, True, "4.93", "4.47", "19.79", "2.41", "1.055", "29.1"),
    ("deit-tiny", 4, False, "5.75", "5.31", "23.05", "2.48", "1.225", "29.1"),
    ("deit-tiny", 4, True, "6.71", "6.24", "26.89", "2.67", "1.403", "29.1"),
    ("deit-small", 2, False, "15.01", "14.16", "60.08", "5.27", "3.146", "58.2"),
    ("deit-small", 2, True, "15.98", "15.09", "64.01", "5.50", "3.504", "58.2"),
    ("deit-small", 4, False, "22.10", "21.23", "88.43", "6.23", "4.541", "58.2"),
    ("deit-small", 4, True, "23.07", "22.17", "92.36", "6.46", "4.898", "58.2"),
    ("deit-base", 2, False, "58.31", "56.62", "233.3", "14.03", "11.87", "116.4"),
    ("deit-base", 2, True, "59.32", "57.55", "237.4", "14.33", "12.59", "116.4"),
    ("deit-base", 4, False, "86.64", "84.93", "346.6", "17.7", "17.45", "116.4"),
    ("deit-base", 4, True, "87.65", "85.87", "350.7", "18.0", "18.16", "116.4"),
]


# Section 3 of the specification of the family, without and with SI: params M, binary weights M,
# binary GMAC, fp MMAC.
FAMILY = [
    ("swin-tiny", False, "28.37", "25.88", "4.302", "188.6"),
    ("swin-tiny", True, "28.47", "25.94", "4.442", "188.6"),
    ("pvt-tiny", False, "13.32", "9.57", "1.741", "191.6"),
    ("pvt-tiny", True, "13.81", "10.04", "2.032", "191.6"),
    ("nest-tiny", False, "17.20", "15.26", "4.752", "1055"),
    ("nest-tiny", True, "18.15", "16.18", "5.342", "1055"),
]


@pytest.mark.parametrize(("preset", "si", "params", "bits", "gmac", "mmac"), FAMILY)
def test_totals_equal_the_size_table_of_the_family(
    preset: str, si: bool, params: str, bits: str, gmac: str, mmac: str
) -> None:
    total = account(PRESETS[preset].config.replace(si=si))

    assert as_printed(total.parameters / 1e6, params) == params
    assert as_printed(total.binary_weights / 1e6, bits) == bits
    assert as_printed(total.binary_macs / 1e9, gmac) == gmac
    assert as_printed(total.fp_macs / 1e6, mmac) == mmac


@pytest.mark.parametrize("preset", ["micro", "micro-swin", "micro-pvt", "micro-nest"])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("weight_bits", [1, 32])
def test_every_parameter_of_a_network_is_counted_those_of_its_scheme_too(
    preset: str, scheme: str, weight_bits: int
) -> None:
    for norm, merge in product(("batch", "layer"), ("float", "binary")):
        config = PRESETS[preset].config.replace(
            norm=norm, weight_bits=weight_bits, merge=None if preset == "micro" else merge
        )
        config = dataclasses.replace(config, scheme=scheme)
        with torch.device("meta"):
            network = build_network(config)
        counted = account(config)
        assert counted.parameters == sum(p.numel() for p in network.parameters())
        weights = (m.weight.numel() for m in binary_modules(network).values())
        assert counted.binary_weights == (sum(weights) if weight_bits == 1 else 0)


def test_every_scheme_says_what_it_learns() -> None:
    assert set(OWN) == set(SCHEMES)


def as_printed(value: float, like: str) -> str:
    return f"{value:.{len(like.partition('.')[2])}f}"


@pytest.mark.parametrize(
    ("preset", "ratio", "si", "params", "bits", "fp32", "folded", "gmac", "mmac"), TABLE
)
def test_totals_equal_the_size_table_of_the_specification(
    preset: str,
    ratio: int,
    si: bool,
    params: str,
    bits: str,
    fp32: str,
    folded: str,
    gmac: str,
    mmac: str,
) -> None:
    config = PRESETS[preset].config.replace(mlp_ratio=ratio, si=si)

    total = account(config)

    assert as_printed(total.parameters / 1e6, params) == params
    assert as_printed(total.binary_weights / 1e6, bits) == bits
    assert as_printed(total.fp32_bytes / 1e6, fp32) == fp32
    assert as_printed(total.folded_bytes / 1e6, folded) == folded
    assert as_printed(total.binary_macs / 1e9, gmac) == gmac
    assert as_printed(total.fp_macs / 1e6, mmac) == mmac


def test_every_layer_that_is_not_binary_says_why() -> None:
    total = account(PRESETS["micro"].config)

    assert [layer.name for layer in total.layers if layer.kind != "binary" and not layer.why] == []


def test_a_32_bit_weight_checkpoint_has_no_binary_weights_and_no_saving_in_its_linears() -> None:
    config: ModelConfig = PRESETS["micro"].config.replace(weight_bits=32)

    total = account(config)

    qkv = next(layer for layer in total.layers if layer.name == "blocks.0.attn.qkv")
    assert total.binary_weights == 0
    assert qkv.folded_bytes == qkv.fp32_bytes
    assert qkv.fp_macs > 0


def test_json_totals_are_the_sums_of_the_json_layers() -> None:
    document = account(PRESETS["micro"].config).to_dict()

    for key in ("parameters", "binary_weights", "fp32_bytes", "folded_bytes", "binary_macs"):
        assert document["totals"][key] == sum(layer[key] for layer in document["layers"])
