"""Folders of the Hugging Face Hub: written, read, read by every command, and uploaded."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from safetensors.torch import load_file, save_file

import vitc
from tests.devices.sshd import free_port
from vitc import VitcError

LABELS = tuple(f"class {i}" for i in range(10))
OWNER = "somebody/cats"
COMMIT = "0" * 40
TOKEN = "hf_of_nobody"  # noqa: S105 - opens nothing


@pytest.fixture(scope="module")
def model():
    made = vitc.new("micro", depth=1, seed=4)
    made.labels = LABELS
    made.history = {"test_accuracy": 0.9612}
    return made


@pytest.fixture(scope="module")
def artefact(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("artefact")
    vitc.export(model, folder / "m.onnx", vitc.ExportOptions(check=False))
    return vitc.compile(folder / "m.onnx", folder / "here")


@pytest.fixture
def folder(model, tmp_path) -> Path:
    vitc.save_pretrained(model, tmp_path / "cats")
    return tmp_path / "cats"


def same(one, other) -> bool:
    held = other.state_dict()
    return all(torch.equal(tensor, held[name]) for name, tensor in one.state_dict().items())


def test_a_folder_gives_the_model_back(model, folder) -> None:
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors", "config.json", "README.md",
    }  # fmt: skip
    for found in (vitc.from_pretrained(folder), vitc.from_pretrained(str(folder))):
        assert same(model, found)
        assert (found.config, found.labels) == (model.config, LABELS)
        assert found.history == model.history
        assert found.preprocessing == model.preprocessing


def test_the_configuration_tells_what_a_file_without_its_header_holds(model, folder) -> None:
    plain = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})
    found = vitc.from_pretrained(folder)

    assert same(model, found)
    assert (found.config, found.labels) == (model.config, LABELS)
    assert found.load_report.described


def test_the_card_is_one_for_the_hub_and_has_the_figures_of_the_manifest(
    model, artefact, tmp_path
) -> None:
    vitc.save_pretrained(model, tmp_path / "cats", artefact=artefact)
    card = ModelCard.load(tmp_path / "cats" / "README.md")

    assert card.data.library_name == "vitc"
    assert card.data.pipeline_tag == "image-classification"
    assert {"vitc", "sibivit", "binarized", "bibert"} <= set(card.data.tags)
    facts = artefact.manifest
    assert "| test accuracy | 96.12% |" in card.text
    assert f"| compiled for | {facts.target.name} |" in card.text
    assert f"| library of the artefact | {facts.sizes['library'] / 1e6:.3f} MB |" in card.text
    assert "bits equal" in card.text
    assert 'vitc.from_pretrained("cats")' in card.text
    assert "vitc export cats --out m.onnx" in card.text
    assert f"{facts.check['max_logit_difference']:.2g}" in card.text


def test_an_artefact_of_another_network_is_refused(artefact, tmp_path) -> None:
    other = vitc.new("micro", depth=2)
    with pytest.raises(VitcError, match="of another network than the model"):
        vitc.save_pretrained(other, tmp_path / "cats", artefact=artefact)
    assert not (tmp_path / "cats").exists()


def test_what_is_there_is_kept(model, folder) -> None:
    before = (folder / "README.md").read_bytes()
    with pytest.raises(VitcError, match="already"):
        vitc.save_pretrained(model, folder)
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(VitcError, match=r"mine\.txt"):
        vitc.save_pretrained(model, folder, force=True)
    assert (folder / "README.md").read_bytes() == before
    (folder / "mine.txt").unlink()
    vitc.save_pretrained(model, folder, force=True)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x"), "model.safetensors"),
    ],
)
def test_a_damaged_folder_is_named(folder, damage, said) -> None:
    damage(folder)
    with pytest.raises(VitcError, match=said):
        vitc.from_pretrained(folder)


def test_a_damaged_configuration_is_named(folder) -> None:
    plain = load_file(folder / "model.safetensors")
    save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text("{")
    with pytest.raises(VitcError, match=r"config\.json cannot be read"):
        vitc.from_pretrained(folder)


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub's interface as an upload of small files and a download speak."""

    files: dict[str, bytes]
    asked: list[str]

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, document: object, status: int = 200) -> None:
        text = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        here = f"http://{self.headers['Host']}/{OWNER}"
        self.asked.append(f"{self.path} {self.headers.get('Authorization')}")
        if "/private" in body.decode(errors="ignore") and self.path.endswith("/create"):
            self.answer({"error": "not allowed"}, 403)
        elif self.path.endswith("/repos/create"):
            self.answer({"url": here, "id": OWNER, "name": OWNER})
        elif self.path.endswith("/preupload/main"):
            named = [each["path"] for each in json.loads(body)["files"]]
            modes = [
                {"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in named
            ]
            self.answer({"files": modes})
        elif self.path.endswith("/validate-yaml"):
            self.answer({"errors": [], "warnings": []})
        elif "/commit/" in self.path:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    value = entry["value"]
                    self.files[value["path"]] = base64.b64decode(value["content"])
            address = f"{here}/commit/{'1' * 40}"
            self.answer({"success": True, "commitOid": "1" * 40, "commitUrl": address})
        else:
            self.answer({"error": "unknown"}, 404)

    def do_GET(self) -> None:
        self.asked.append(f"{self.path} {self.headers.get('Authorization')}")
        if f"/{OWNER}/" not in f"{self.path}/":
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif "/resolve/" in self.path:
            self.file(self.path.rpartition("/")[2])
        elif "/tree/" in self.path:
            self.answer(
                [
                    {"type": "file", "path": name, "size": len(data), "oid": COMMIT}
                    for name, data in self.files.items()
                ]
            )
        else:
            held = [{"rfilename": name} for name in self.files]
            self.answer({"id": OWNER, "sha": COMMIT, "siblings": held, "error": ""})

    do_HEAD = do_GET  # noqa: N815 - of http.server

    def file(self, name: str) -> None:
        data = self.files[name]
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(data, usedforsecurity=False).hexdigest()}"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator[tuple[str, type[Hub]]]:
    class Own(Hub):
        files: dict[str, bytes] = {}  # noqa: RUF012 - of this test
        asked: list[str] = []  # noqa: RUF012

    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with ThreadingHTTPServer(("127.0.0.1", 0), Own) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", Own
        server.shutdown()
        thread.join()


def test_a_model_is_uploaded_by_the_hubs_own_client(model, artefact, hub, tmp_path) -> None:
    endpoint, served = hub
    said = vitc.push_to_hub(model, OWNER, artefact=artefact, token=TOKEN, endpoint=endpoint)

    assert said.endswith(f"/commit/{'1' * 40}")
    assert served.asked
    assert all(f"Bearer {TOKEN}" in each for each in served.asked if "create" in each)
    assert served.files.keys() == {"model.safetensors", "config.json", "README.md"}
    (tmp_path / "fetched").mkdir()
    for name, data in served.files.items():
        (tmp_path / "fetched" / name).write_bytes(data)
    assert same(model, vitc.from_pretrained(tmp_path / "fetched"))
    assert f'vitc.from_pretrained("{OWNER}")' in served.files["README.md"].decode()


FETCHED = """
import sys, vitc
name, token, out = sys.argv[1:]
try:
    model = vitc.from_pretrained(name, token=token)
except vitc.VitcError as error:
    print(error)
    sys.exit(1)
vitc.save_pretrained(model, out)
"""


def test_a_model_is_fetched_by_its_name_and_then_without_the_hub(
    model, folder, hub, tmp_path
) -> None:
    endpoint, served = hub
    kept = ("model.safetensors", "config.json", "README.md")
    served.files = {name: (folder / name).read_bytes() for name in kept}
    served.files["large.bin"] = b"of no use here"

    def fetch(name: str, out: str, **environment: str) -> subprocess.CompletedProcess[str]:
        # huggingface_hub reads the address of the Hub once, as it is imported.
        return subprocess.run(
            [sys.executable, "-c", FETCHED, name, TOKEN, str(tmp_path / out)],
            env={**os.environ, "HF_ENDPOINT": endpoint, **environment},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = fetch(OWNER, "first")
    assert done.returncode == 0, done.stdout + done.stderr
    assert same(model, vitc.from_pretrained(tmp_path / "first"))
    wanted = [each for each in served.asked if "/resolve/" in each]
    assert {each.split()[0].rpartition("/")[2] for each in wanted} == set(kept)
    assert all(each.endswith(f"Bearer {TOKEN}") for each in wanted)

    before = len(served.asked)
    again = fetch(OWNER, "second", HF_HUB_OFFLINE="1")
    assert again.returncode == 0, again.stdout + again.stderr
    assert len(served.asked) == before
    assert same(model, vitc.from_pretrained(tmp_path / "second"))

    absent = fetch("somebody/dogs", "third")
    assert absent.returncode == 1
    assert "There is no folder somebody/dogs, and the Hub does not give it" in absent.stdout


def test_what_the_hub_refuses_is_a_sentence(model, hub) -> None:
    endpoint, served = hub
    with pytest.raises(VitcError, match="The Hub did not take") as caught:
        vitc.push_to_hub(model, "a/b/private", token=TOKEN, endpoint=endpoint)
    assert "hf auth login" in caught.value.hint
    assert not served.files


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"id": 3}', None])
def test_an_answer_that_no_hub_gives_is_a_sentence(model, hub, monkeypatch, answer) -> None:
    endpoint, served = hub

    def answered(self: Hub) -> None:
        if answer is None:  # the connection ends
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    for method in ("do_POST", "do_GET", "do_HEAD"):
        monkeypatch.setattr(served, method, answered)
    with pytest.raises(VitcError, match=f"The Hub did not take {OWNER}: "):
        vitc.push_to_hub(model, OWNER, token=TOKEN, endpoint=endpoint)
    client = HfApi(endpoint=endpoint, token=TOKEN)
    monkeypatch.setattr("huggingface_hub.snapshot_download", client.snapshot_download)
    with pytest.raises(VitcError, match="the Hub does not give it: "):
        vitc.from_pretrained(OWNER, token=TOKEN)


def test_a_hub_that_is_not_reached_is_a_sentence(model) -> None:
    with pytest.raises(VitcError, match=r"The Hub did not take .*Connect"):
        vitc.push_to_hub(model, OWNER, token=TOKEN, endpoint=f"http://127.0.0.1:{free_port()}")


def test_a_name_that_is_nowhere_is_a_sentence(monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(VitcError, match="the Hub does not give it"):
        vitc.from_pretrained("nobody/nothing")
