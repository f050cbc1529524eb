"""The folder of a model on the Hugging Face Hub, and the way there and back.

A folder has ``model.safetensors``, which is vitc's own checkpoint and holds everything;
``config.json`` says the same again for the Hub and for what drops the header of a file;
``README.md`` is the model card. The Hub's client, huggingface_hub, comes with vitc[train].
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vitc.errors import VitcError
from vitc.models.architectures.table import named_after, summary
from vitc.models.checkpoint import described_by, load, save
from vitc.models.described import sides_text
from vitc.models.folder import CONFIG, LIBRARY, TENSORS
from vitc.outputs import claim_folder
from vitc.places import scratch_folder

if TYPE_CHECKING:
    from vitc.models.network import Network
    from vitc.runtime.artefact import Artefact

__all__ = ["from_pretrained", "push_to_hub", "save_pretrained"]

_CARD: Final = "README.md"
_FILES: Final = (TENSORS, CONFIG, _CARD)
_CLASSIFIES: Final = "image-classification"


def save_pretrained(
    model: Network,
    folder: str | os.PathLike[str],
    *,
    artefact: Artefact | None = None,
    force: bool = False,
) -> None:
    """Write the folder of a model as the Hub has them, complete or not at all.

    Args:
        model: A model with latent weights.
        folder: The folder to make.
        artefact: What was compiled of it; the card then has its sizes and what its check found.
        force: Whether such a folder may be replaced.

    Raises:
        VitcError: If the folder exists or cannot be written, or the artefact is of another
            network.
    """
    _write(model, folder, artefact, force, Path(folder).absolute().name)


def _write(
    model: Network,
    folder: str | os.PathLike[str],
    artefact: Artefact | None,
    force: bool,
    named: str,
) -> None:
    """`save_pretrained`, with a card that calls the model as it is fetched."""
    card = _card(model, artefact, named)
    described = {"library_name": LIBRARY, "model_type": LIBRARY, LIBRARY: described_by(model)}
    with (
        claim_folder(folder, marker=CONFIG, force=force, parts=lambda _: _FILES) as output,
        output.scratch() as made,
    ):
        save(model, made / TENSORS)
        text = json.dumps(described, indent=2, sort_keys=True) + "\n"
        (made / CONFIG).write_text(text, encoding="utf-8")
        (made / _CARD).write_text(card, encoding="utf-8")
        output.publish(made)


def from_pretrained(
    source: str | os.PathLike[str], *, revision: str | None = None, token: str | None = None
) -> Network:
    """Read a folder that `save_pretrained` wrote, or one of the Hub.

    Args:
        source: A folder; or the name of a model of the Hub, ``owner/name``, which is fetched into
            the Hub's cache.
        revision: Branch, tag or commit of the Hub.
        token: For a private model; by default that of the Hub's own login.

    Raises:
        VitcError: If it is neither, cannot be fetched, or holds no network of vitc.
    """
    if Path(source).exists():
        return load(source)
    from huggingface_hub import snapshot_download

    with _asked(
        f"There is no folder {source}, and the Hub does not give it",
        "Name a folder of `save_pretrained`, or owner/name of a model that you may read.",
    ):
        folder = snapshot_download(
            os.fspath(source), revision=revision, token=token, allow_patterns=list(_FILES)
        )
    return load(folder)


def push_to_hub(
    model: Network,
    repository: str,
    *,
    artefact: Artefact | None = None,
    private: bool | None = None,
    token: str | None = None,
    message: str = "Upload by vitc",
    endpoint: str | None = None,
) -> str:
    """Upload a model to the Hub, as `save_pretrained` writes it.

    Args:
        model: A model with latent weights.
        repository: ``owner/name``; made if it is not there.
        artefact: As of `save_pretrained`.
        private: Whether a new repository is private; None for the Hub's usual.
        token: By default that of the Hub's own login.
        message: Of the commit.
        endpoint: Address of a Hub; None for the public one, or that of HF_ENDPOINT.

    Returns:
        Address of the commit.

    Raises:
        VitcError: If the Hub refuses, or the artefact is of another network.
    """
    from huggingface_hub import HfApi

    hub = HfApi(endpoint=endpoint, token=token, library_name=LIBRARY)
    with scratch_folder("hub") as scratch:
        folder = scratch / "model"
        _write(model, folder, artefact, False, repository)
        with _asked(
            f"The Hub did not take {repository}",
            "Look at the name and the network, and log in with `hf auth login`.",
        ):
            hub.create_repo(repository, private=private, exist_ok=True)
            done = hub.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    return str(done.commit_url)


@contextmanager
def _asked(refused: str, hint: str) -> Iterator[None]:
    """Say in a sentence what the Hub's client raises.

    That is anything: errors of its own, those of its HTTP library, and what its code comes to at an
    answer that no Hub gives, such as that of a proxy.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        if not isinstance(error, (HfHubHTTPError, HFValidationError, OSError)):
            reason = f"{type(error).__name__}: {reason}"
        raise VitcError(f"{refused}: {reason}", hint) from error


def _card(model: Network, artefact: Artefact | None, named: str) -> str:
    config = model.config
    name, sides = named_after(config), sides_text(model.preprocessing.crop)
    tags = [LIBRARY, config.arch, *(["binarized", config.scheme] if config.binarized else [])]
    head = ["---", f"library_name: {LIBRARY}", f"pipeline_tag: {_CLASSIFIES}", "tags:"]
    if config.arch.startswith(("detector", "segmenter", "retrieval")):
        head.remove(f"pipeline_tag: {_CLASSIFIES}")
    lines = [*head, *(f"- {tag}" for tag in tags), "---", "", f"# {name}", ""]
    lines += [f"{summary(config)}; {sides} px, {config.classes} classes. Made with vitc.", ""]
    lines += ["| | |", "|---|---|"]
    lines += [f"| {what} | {value} |" for what, value in _figures(model, artefact)]
    lines += ["", "```python", "import vitc", f"model = vitc.from_pretrained({json.dumps(named)})"]
    lines += ['vitc.export(model, "m.onnx")', 'vitc.compile("m.onnx", "here")', "```", ""]
    lines += ["Or, of the folder of these files:", "", "```"]
    folder = shlex.quote(named.rpartition("/")[2])
    lines += [f"vitc export {folder} --out m.onnx && vitc compile m.onnx --out here", "```", ""]
    return "\n".join(lines)


def _figures(model: Network, artefact: Artefact | None) -> Iterator[tuple[str, str]]:
    for key in ("test_accuracy", "validation_accuracy"):
        value = model.history.get(key)
        if isinstance(value, float):
            yield key.replace("_", " "), f"{value:.2%}"
    yield "parameters", f"{sum(each.numel() for each in model.parameters()):,}"
    if artefact is None:
        return
    facts = artefact.manifest
    if facts.config != model.config.to_dict():
        raise VitcError(
            f"{artefact.path} is of another network than the model.",
            "Name the artefact that was compiled of it.",
        )
    yield "compiled for", facts.target.name
    for part, size in facts.sizes.items():
        yield f"{part} of the artefact", f"{size / 1e6:.3f} MB"
    if isinstance(facts.check, Mapping):
        yield "checked against", _told(facts.check)


def _told(check: Mapping[str, Any]) -> str:
    equal = "equal" if check.get("equal") else "not equal"
    apart = check.get("max_logit_difference")
    return (
        f"{check.get('against')} on {check.get('device')}, {check.get('images')} images: bits "
        f"{equal}, largest difference of a logit {apart:.2g}"
    )
