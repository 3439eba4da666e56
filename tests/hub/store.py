"""What the test Hub keeps: repositories of commits on branches, and what it takes as metadata."""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

LARGE = (".safetensors", ".bin", ".gguf", ".parquet")  # kept by LFS, as .gitattributes has it
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)
_LICENSES = ("apache-2.0", "mit", "cc-by-4.0", "cc0-1.0", "gpl-3.0", "llama3", "gemma", "other")


@dataclass(frozen=True)
class Blob:
    """A file: its bytes, and whether LFS keeps them.

    Attributes:
        xet: (SHA-256, bytes in all, Xet hash) of a file whose bytes are in a Xet store.
    """

    data: bytes
    lfs: bool
    xet: tuple[str, int, str] | None = None

    @property
    def size(self) -> int:
        return self.xet[1] if self.xet else len(self.data)

    @property
    def git_oid(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()

    @property
    def sha256(self) -> str:
        return self.xet[0] if self.xet else hashlib.sha256(self.data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.git_oid


@dataclass(frozen=True)
class Commit:
    """All files after a commit."""

    oid: str
    message: str
    files: dict[str, Blob]


@dataclass
class Repo:
    """A repository: the commits of each branch, oldest first. The first one is the Hub's own."""

    private: bool
    branches: dict[str, list[Commit]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        first = {".gitattributes": Blob(b"*.safetensors filter=lfs\n", False)}
        self.branches["main"] = [Commit("0" * 40, "initial commit", first)]

    def at(self, revision: str) -> Commit | None:
        """The commit that a branch or an id names."""
        if revision in self.branches:
            return self.branches[revision][-1]
        commits = [commit for branch in self.branches.values() for commit in branch]
        return next((commit for commit in commits if commit.oid == revision), None)

    def commit(self, branch: str, message: str, changes: dict[str, Blob]) -> Commit:
        """Put files on top of a branch."""
        before = self.branches[branch]
        text = f"{branch} {len(before)} {message} {sorted(changes)}"
        oid = hashlib.sha1(text.encode()).hexdigest()
        made = Commit(oid, message, before[-1].files | changes)
        before.append(made)
        return made


def listing(commit: Commit, folder: str, recursive: bool) -> list[dict[str, Any]]:
    """A tree as the API gives it."""
    prefix, found = f"{folder}/" if folder else "", {}
    for path, blob in sorted(commit.files.items()):
        if not path.startswith(prefix):
            continue
        parts = path[len(prefix) :].split("/")
        for depth in range(1, len(parts)):
            parent = prefix + "/".join(parts[:depth])
            if recursive or depth == 1:
                found[parent] = {"type": "directory", "path": parent, "oid": "1" * 40, "size": 0}
        if recursive or len(parts) == 1:
            found[path] = entry(path, blob)
    return list(found.values())


def entry(path: str, blob: Blob) -> dict[str, Any]:
    """A file as the API gives it."""
    said = {"type": "file", "path": path, "size": blob.size, "oid": blob.git_oid}
    lfs = {"oid": blob.sha256, "size": blob.size, "pointerSize": 130}
    return said | ({"lfs": lfs} if blob.lfs else {})


def metadata(card: str) -> dict[str, Any]:
    """The YAML at the top of a README.md."""
    found = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    values = yaml.safe_load(found[1]) if found else None
    return values if isinstance(values, dict) else {}


def complaints(card: str) -> list[str]:
    """What the Hub would refuse in a card's metadata."""
    data, said = metadata(card), []
    for key in ("base_model", "datasets"):
        values = data.get(key, [])
        for value in values if isinstance(values, list) else [values]:
            if not isinstance(value, str) or not _HUB_ID.fullmatch(value):
                said.append(f'"{key}" with value "{value}" is not valid: use an id from the Hub')
    if "license" in data and data["license"] not in _LICENSES:
        said.append(f'"license" must be one of [{", ".join(_LICENSES)}]')
    for key in ("tags", "metrics"):
        if not all(isinstance(value, str) for value in data.get(key, [])):
            said.append(f'"{key}" must be an array of strings')
    for i, model in enumerate(data.get("model-index", [])):
        said += _model_complaints(f"model-index[{i}]", model)
    return said


def _model_complaints(place: str, model: dict[str, Any]) -> list[str]:
    said = [] if isinstance(model.get("name"), str) else [f'"{place}.name" is required']
    for i, result in enumerate(model.get("results", [])):
        here = f"{place}.results[{i}]"
        if not isinstance(result.get("task", {}).get("type"), str):
            said.append(f'"{here}.task.type" is required')
        dataset = result.get("dataset", {})
        if not _HUB_ID.fullmatch(str(dataset.get("type", ""))):
            said.append(f'"{here}.dataset.type" must be a data set\'s id')
        if not isinstance(dataset.get("name"), str):
            said.append(f'"{here}.dataset.name" is required')
        for metric in result.get("metrics", []):
            if not isinstance(metric.get("type"), str) or "value" not in metric:
                said.append(f'"{here}.metrics" need a type and a value')
    return said
