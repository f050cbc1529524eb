"""manifest.json: everything about an artefact, and the digest of every other file.

What `to_dict` writes, `from_dict` reads; whatever cannot be of this vitc is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

from vitc.runtime.port import Port, classifier
from vitc.targets.table import TARGETS, Target
from vitc.targets.tiles import Tile

__all__ = ["FORMAT", "EntryFacts", "Manifest", "StepFacts", "TargetFacts", "Written"]

FORMAT: Final = 3
"""Version of the manifest; a reader refuses any other."""

_MAX_BATCH: Final = 64
_MAX_SIZE: Final = 1 << 40
_UNITS: Final = (None, "popcount", "int8")
_BUFFER: Final = ("tap", "bytes", "layout", "taps")


@dataclass(frozen=True)
class Written:
    """What a kernel writes: a buffer, or a port.

    Attributes:
        tap: Name of the value.
        bytes: Of the buffer; 0 for a port.
        layout: How the buffer holds an array (`vitc.targets.layouts`); None for a port.
        taps: The values that it holds: `name`, and the `views` to each from the array.
        port: Name of the port; None for a buffer.
    """

    tap: str
    bytes: int
    layout: Mapping[str, Any] | None
    taps: tuple[Mapping[str, Any], ...] = ()
    port: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        if self.port is not None:
            return {"tap": self.tap, "port": self.port}
        taps = [dict(tap) for tap in self.taps]
        return {"tap": self.tap, "bytes": self.bytes, "layout": self.layout, "taps": taps}

    @classmethod
    def from_dict(cls, values: Any) -> Written:
        """The inverse; a layout is judged where it is used."""
        what = "steps write named ports, or buffers with bytes, a layout and taps"
        names = ("tap", "port") if isinstance(values, dict) and "port" in values else _BUFFER
        _keys(values, names, what)
        _need(isinstance(values["tap"], str), what)
        if "port" in values:
            _need(isinstance(values["port"], str), what)
            return cls(values["tap"], 0, None, (), values["port"])
        taps = values["taps"]
        _need(isinstance(taps, list) and isinstance(values["layout"], dict), what)
        known = all(isinstance(tap, dict) and isinstance(tap.get("name"), str) for tap in taps)
        _need(known and _size(values["bytes"]), what)
        return cls(values["tap"], values["bytes"], values["layout"], tuple(taps))


@dataclass(frozen=True)
class StepFacts:
    """One kernel call.

    Attributes:
        tap: Name of the first value that it writes.
        layer: Layer that it works for.
        kernel: Symbol of the kernel.
        tasks: How many parts threads share; None for the extent `n` of a run.
        binary: Multiply-accumulates of 1-bit operands, for one image or one row of `n`.
        fp: Those of fp32 operands.
        unit: What makes the binary ones: `popcount`, `int8`, or None.
        writes: What it writes.
    """

    tap: str
    layer: str
    kernel: str
    tasks: int | None
    binary: int
    fp: int
    unit: str | None
    writes: tuple[Written, ...]

    @property
    def title(self) -> str:
        """What it writes, for tables: `blocks.0.attn.query, key, value`."""
        others = [written.tap.rpartition(".")[2] for written in self.writes[1:]]
        return ", ".join([self.tap, *others])

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "tap": self.tap,
            "layer": self.layer,
            "kernel": self.kernel,
            "tasks": self.tasks,
            "macs": {"binary": self.binary, "fp": self.fp},
            "unit": self.unit,
            "writes": [written.to_dict() for written in self.writes],
        }

    @classmethod
    def from_dict(cls, values: Any) -> StepFacts:
        """The inverse."""
        names = ("tap", "layer", "kernel", "tasks", "macs", "unit", "writes")
        _keys(values, names, f"steps have {', '.join(names)}")
        texts = [values.get(name) for name in ("tap", "layer", "kernel")]
        _need(all(isinstance(text, str) for text in texts), "steps have a tap, a layer, a kernel")
        macs, tasks, unit = values.get("macs"), values.get("tasks"), values.get("unit")
        _keys(macs, ("binary", "fp"), "macs are binary and fp")
        counts = [macs["binary"], macs["fp"]]
        known = all(type(count) is int and count >= 0 for count in counts)
        _need(known and unit in _UNITS, "steps say how much they compute, and in which unit")
        _need(tasks is None or _size(tasks), "tasks are a number")
        writes = values.get("writes")
        _need(isinstance(writes, list) and bool(writes), "steps write something")
        written = tuple(Written.from_dict(entry) for entry in writes)
        return cls(
            tap=values["tap"],
            layer=values["layer"],
            kernel=values["kernel"],
            tasks=tasks,
            binary=macs["binary"],
            fp=macs["fp"],
            unit=unit,
            writes=written,
        )


@dataclass(frozen=True)
class EntryFacts:
    """One program of the library.

    Attributes:
        name: Its name.
        inputs: Ports that a run is given.
        outputs: Ports that a run gives.
        steps: Kernel calls, in order.
    """

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    steps: tuple[StepFacts, ...]

    @property
    def ports(self) -> tuple[Port, ...]:
        """Inputs first, as the library counts them."""
        return self.inputs + self.outputs

    @property
    def classifier(self) -> tuple[tuple[int, int, int], int] | None:
        """Image shape and classes, if one image goes in and logits come out."""
        return classifier(self.inputs, self.outputs)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "name": self.name,
            "inputs": [port.to_dict() for port in self.inputs],
            "outputs": [port.to_dict() for port in self.outputs],
            "steps": [step.to_dict() for step in self.steps],
        }

    @classmethod
    def from_dict(cls, values: Any) -> EntryFacts:
        """The inverse."""
        _keys(values, ("name", "inputs", "outputs", "steps"), "entries have ports and steps")
        _need(isinstance(values["name"], str), "entries are named")
        lists = [values.get(name) for name in ("inputs", "outputs", "steps")]
        _need(all(isinstance(entries, list) for entries in lists), "entries have ports and steps")
        _need(all(lists), "an entry has inputs, outputs and steps")
        inputs, outputs = (tuple(map(Port.from_dict, ports)) for ports in lists[:2])
        names = [port.name for port in (*inputs, *outputs)]
        _need(len(set(names)) == len(names), "ports have names of their own")
        steps = tuple(map(StepFacts.from_dict, lists[2]))
        written = {w.port for step in steps for w in step.writes if w.port is not None}
        _need(written <= {port.name for port in outputs}, "steps write ports that there are")
        return cls(values["name"], inputs, outputs, steps)


@dataclass(frozen=True)
class TargetFacts:
    """The machine that an artefact was compiled for.

    Attributes:
        name: A key of `vitc.targets.TARGETS`; what follows is what it said then.
        triple: Of LLVM.
        cpu: Of LLVM.
        features: What the processor must have.
        isa: Instruction set of the kernels.
    """

    name: str
    triple: str
    cpu: str
    features: tuple[str, ...]
    isa: str

    @classmethod
    def of(cls, target: Target) -> TargetFacts:
        """What a target says."""
        return cls(target.name, target.triple, target.cpu, tuple(target.features), target.isa)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "features": list(self.features)}

    @classmethod
    def from_dict(cls, values: Any) -> TargetFacts:
        """The inverse."""
        names = [field.name for field in fields(cls)]
        name = values.get("name") if isinstance(values, dict) else None
        _need(isinstance(name, str) and name in TARGETS, f"the target {name!r} is known")
        _keys(values, names, f"a target has {', '.join(names)}")
        texts = [values[key] for key in names if key != "features"]
        known = isinstance(values["features"], list)
        _need(
            all(isinstance(t, str) for t in (*texts, *values["features"])) if known else False,
            "a target is texts",
        )
        return cls(**{**values, "features": tuple(values["features"])})


@dataclass(frozen=True)
class Manifest:
    """What an artefact is.

    Attributes:
        vitc: Version that compiled it.
        tvm: Version of TVM.
        compiler: SHA-256 of what the bytes depend on.
        dialect: Version of domain dev.vitc.
        source_sha256: Of the checkpoint, or None.
        config: `vitc.models.ModelConfig` as JSON values; empty for another network.
        preprocessing: `vitc.models.Preprocessing` as JSON values.
        labels: Class names, possibly none.
        passes: Names of the rewrites that ran.
        target: Machine.
        batch: Images of one run.
        workspace_bytes: Of one handle.
        sizes: Bytes of the files, and of the weights.
        tiles: Register tiles of kernels that do not have the target's, by what the kernel does.
        entries: Programs; the first is the one that is run where none is named.
        check: What the check found, or a sentence that says why there was none.
        files: SHA-256 of every other file.
        symbol_prefix: What symbols of the static library begin with in place of ``vitc``; JSON has
            it where there is one.
    """

    vitc: str
    tvm: str
    compiler: str
    dialect: int
    source_sha256: str | None
    config: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    labels: tuple[str, ...]
    passes: tuple[str, ...]
    target: TargetFacts
    batch: int
    workspace_bytes: int
    sizes: Mapping[str, int]
    tiles: Mapping[str, Tile]
    entries: tuple[EntryFacts, ...]
    check: Mapping[str, Any] | str = "skipped"
    files: Mapping[str, str] | None = None
    symbol_prefix: str = ""

    @property
    def steps(self) -> tuple[StepFacts, ...]:
        """Those of the first entry."""
        return self.entries[0].steps

    @property
    def digests(self) -> Mapping[str, str]:
        """SHA-256 of the files; empty before it is sealed."""
        return self.files or {}

    def entry(self, name: str | None = None) -> EntryFacts | None:
        """An entry by its name, the first without one; None if there is none."""
        if name is None:
            return self.entries[0]
        return next((entry for entry in self.entries if entry.name == name), None)

    def with_check(self, check: Mapping[str, Any] | str) -> Manifest:
        """The same with another result of the check."""
        return replace(self, check=check)

    def with_files(self, files: Mapping[str, str]) -> Manifest:
        """The same with other digests."""
        return replace(self, files=files)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "format": FORMAT,
            **{name: _plain(getattr(self, name)) for name in _PLAIN},
            "target": self.target.to_dict(),
            "tiles": {name: tile.to_dict() for name, tile in self.tiles.items()},
            "entries": [entry.to_dict() for entry in self.entries],
            "check": _plain(self.check),
            "files": dict(self.digests),
            **({"symbol_prefix": self.symbol_prefix} if self.symbol_prefix else {}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Manifest:
        """The inverse of `to_dict`.

        Raises:
            ValueError: In words that say what does not hold.
        """
        names = {"format", *(field.name for field in fields(cls))}
        differing = sorted(names ^ {*values, "symbol_prefix"})
        _need(not differing, f"its entries are those of this vitc (not so: {', '.join(differing)})")
        texts = ("vitc", "tvm", "compiler")
        _need(all(isinstance(values[name], str) for name in texts), "versions are texts")
        source = values["source_sha256"]
        _need(source is None or isinstance(source, str), "source_sha256 is a text")
        _need(type(values["dialect"]) is int, "dialect is a number")
        for name in ("config", "preprocessing", "sizes", "files"):
            _need(isinstance(values[name], dict), f"{name} is an entry")
        for name in ("labels", "passes"):
            whole = values[name]
            known = isinstance(whole, list) and all(isinstance(part, str) for part in whole)
            _need(known, f"{name} are texts")
        sizes = values["sizes"].values()
        _need(all(type(size) is int and size >= 0 for size in sizes), "sizes are numbers")
        digests = values["files"].values()
        _need(all(isinstance(digest, str) for digest in digests), "files have digests")
        _need(_size(values["batch"]) and values["batch"] <= _MAX_BATCH, "batch is from 1 to 64")
        _need(_size(values["workspace_bytes"]), "workspace_bytes is a size")
        _need(isinstance(values["entries"], list) and bool(values["entries"]), "there are entries")
        prefix = values.get("symbol_prefix", "")
        _need(isinstance(prefix, str), "symbol_prefix is a text")
        _need(isinstance(values["check"], dict | str), "check says what was found")
        made = cls(
            **{name: values[name] for name in _PLAIN},
            target=TargetFacts.from_dict(values["target"]),
            tiles=_tiles(values["tiles"]),
            entries=tuple(map(EntryFacts.from_dict, values["entries"])),
            check=values["check"],
            files=values["files"],
            symbol_prefix=prefix,
        )
        made = replace(made, labels=tuple(made.labels), passes=tuple(made.passes))
        made._need_own_sizes()
        return made

    def _need_own_sizes(self) -> None:
        """What is said twice is said alike."""
        found = self.entries[0].classifier
        size, classes = self.config.get("image_size"), self.config.get("classes")
        if found is not None and (size is not None or classes is not None):
            image, count = found
            sides = list(size) if isinstance(size, list | tuple) else [size, size]
            own = size is None or sides == list(image[1:])
            _need(own and classes in (None, count), "image and classes are those of config")
        names = [entry.name for entry in self.entries]
        _need(len(set(names)) == len(names), "entries have names of their own")


_PLAIN: Final = (
    "vitc", "tvm", "compiler", "dialect", "source_sha256", "config", "preprocessing", "labels",
    "passes", "batch", "workspace_bytes", "sizes",
)  # fmt: skip
"""Fields that JSON has as they are."""


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def _tiles(values: Any) -> dict[str, Tile]:
    try:
        return {name: Tile.from_dict(tile) for name, tile in values.items()}
    except (AttributeError, TypeError, ValueError):
        raise ValueError("tiles are numbers that kernels can have") from None


def _keys(values: Any, names: Collection[str], what: str) -> None:
    _need(isinstance(values, dict) and set(values) == set(names), what)


def _need(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


def _size(value: object) -> bool:
    return type(value) is int and 0 < value < _MAX_SIZE
