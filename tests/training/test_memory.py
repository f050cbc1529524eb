from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vitc.errors import VitcError
from vitc.models import preset, random_model
from vitc.training.memory import MemoryNeed, available, check_memory, estimate
from vitc.training.parts import load_parts

MEASURED = """
import sys, torch
from torch.nn import functional as F
from vitc.models import preset, random_model
model = random_model(preset("micro").config, 1).train()
torch.set_num_threads(1)
F.cross_entropy(model(torch.zeros(2, 3, 32, 32)), torch.zeros(2, dtype=torch.int64)).backward()
for _ in range(2):
    loss = F.cross_entropy(model(torch.zeros(768, 3, 32, 32)), torch.zeros(768, dtype=torch.int64))
    loss.backward()
lines = open("/proc/self/status").read().splitlines()
print(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")))
"""


def test_the_estimate_is_above_what_a_process_takes_and_not_far_above(class_folders: Path) -> None:
    model = random_model(preset("micro").config, 1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parts = load_parts(str(class_folders), preset("micro").preprocessing)
    need = estimate(model, parts, 0.1)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    ran = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, check=True)
    taken = int(ran.stdout)
    assert taken < need.of(768) < 3 * taken
    assert need.of(768) - need.of(0) == pytest.approx(768 * need.image)


def test_a_larger_network_and_more_pixels_take_more(class_folders: Path) -> None:
    shown = preset("micro").preprocessing
    parts = load_parts(str(class_folders), shown)
    small, large = (
        estimate(random_model(preset("micro").config.replace(depth=depth), 1), parts, 0.1)
        for depth in (1, 4)
    )
    assert large.image > 2.5 * small.image
    assert large.fixed > small.fixed


def test_what_does_not_fit_is_refused_with_the_batch_size_that_does() -> None:
    need = MemoryNeed(fixed=1e9, image=100e6)
    assert check_memory(need, 64, 20e9) == "training takes about 7.4 GB of 20 GB of free memory"
    assert check_memory(need, 64, None) == "training takes about 7.4 GB of memory"
    with pytest.raises(
        VitcError, match=r"64 images a step takes about 7\.4 GB of memory"
    ) as caught:
        check_memory(need, 64, 5e9)
    assert caught.value.hint == "Use --batch-size 35."
    assert need.of(35) <= 0.9 * 5e9 < need.of(36)
    with pytest.raises(VitcError) as caught:
        check_memory(need, 64, 1e9)
    assert "smaller preset" in caught.value.hint


def test_free_memory_is_told_and_no_more_than_there_is() -> None:
    free = available(torch.device("cpu"))
    assert free is not None
    lines = Path("/proc/meminfo").read_text().splitlines()
    total = next(int(line.split()[1]) for line in lines if line.startswith("MemTotal:")) * 1024
    assert 0 < free <= total
    assert available(torch.device("meta")) is None
