"""What the local Hub of the tests stores: repositories with commits, branches, and files in git or in LFS."""

import hashlib
import itertools
from dataclasses import dataclass, field
from typing import Any

import yaml

#: As on the Hub, these go to large file storage whatever their size.
LFS_SUFFIXES = (".safetensors", ".bin", ".pt")
_DATE = "2026-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class StoredFile:
    content: bytes
    lfs: bool

    @property
    def oid(self) -> str:
        """What a client compares its own file with: sha256 in LFS, else git's hash."""
        return hashlib.sha256(self.content).hexdigest() if self.lfs else self.git_oid

    @property
    def git_oid(self) -> str:
        """The content in git: the file itself, or a pointer to it."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{{}}\nsize {len(self.content)}\n"
        blob = pointer.format(self.oid).encode() if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()


@dataclass(frozen=True)
class Commit:
    sha: str
    message: str
    files: dict[str, StoredFile]


def front_matter(readme: str) -> Any:
    """The YAML between the two lines of dashes at the top of a card; raises yaml.YAMLError."""
    parts = readme.split("---\n")
    return yaml.safe_load(parts[1]) if len(parts) > 2 and not parts[0] else None


@dataclass
class Repository:
    id: str
    private: bool = False
    gated: bool = False
    commits: list[Commit] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)
    _numbers = itertools.count()

    def __post_init__(self):
        # The Hub starts every repository with such a commit
        self.commit("main", "initial commit", {".gitattributes": StoredFile(b"*.safetensors filter=lfs\n", False)})

    def commit(self, branch: str, message: str, added: dict[str, StoredFile], removed: tuple[str, ...] = ()) -> Commit:
        before = self.revision(branch).files if self.commits else {}
        kept = {path: file for path, file in before.items() if path not in removed}
        sha = hashlib.sha1(f"{self.id} {next(self._numbers)}".encode()).hexdigest()
        self.commits.append(Commit(sha, message, kept | added))
        self.branches[branch] = sha
        return self.commits[-1]

    def revision(self, name: str) -> Commit | None:
        """By a branch's name or a commit's hash."""
        sha = self.branches.get(name, name)
        return next((commit for commit in self.commits if commit.sha == sha), None)

    @property
    def files(self) -> dict[str, StoredFile]:
        return self.revision("main").files

    @property
    def card_data(self) -> dict:
        readme = self.files.get("README.md")
        return front_matter(readme.content.decode()) or {} if readme else {}

    @property
    def tags(self) -> list[str]:
        """From the card's metadata, as the Hub makes them."""
        data = self.card_data
        relation = data.get("base_model_relation", "finetune")
        return [
            *_several(data.get("library_name")),
            *_several(data.get("tags")),
            *_several(data.get("language")),
            *(f"license:{name}" for name in _several(data.get("license"))),
            *(f"dataset:{name}" for name in _several(data.get("datasets"))),
            *(f"base_model:{kind}{base}" for base in _several(data.get("base_model")) for kind in ("", f"{relation}:")),
        ]

    @property
    def eval_results(self) -> list[dict]:
        files = [file for path, file in sorted(self.files.items()) if path.startswith(".eval_results/")]
        return [entry for file in files for entry in yaml.safe_load(file.content)]

    def info(self, commit: Commit) -> dict[str, Any]:
        """All that the Hub says about a repository; which of it, depends on the question."""
        data = self.card_data
        return {
            "id": self.id,
            "modelId": self.id,
            "author": self.id.partition("/")[0],
            "sha": commit.sha,
            "private": self.private,
            "gated": "manual" if self.gated else False,
            "tags": self.tags,
            "library_name": data.get("library_name"),
            "pipeline_tag": data.get("pipeline_tag"),
            "cardData": data,
            "model-index": data.get("model-index"),
            "evalResults": self.eval_results,
            "createdAt": _DATE,
            "lastModified": _DATE,
            "downloads": 0,
            "likes": 0,
            "siblings": [{"rfilename": path} for path in sorted(commit.files)],
        }

    def history(self) -> list[dict]:
        return [
            {"id": commit.sha, "title": commit.message, "message": "", "date": _DATE, "authors": []}
            for commit in reversed(self.commits)
        ]


def _several(value: Any) -> list[str]:
    return value if isinstance(value, list) else [] if value is None else [value]


def listed(path: str, file: StoredFile) -> dict:
    """An entry of a tree."""
    entry = {"type": "file", "path": path, "size": len(file.content), "oid": file.git_oid}
    if file.lfs:
        entry["lfs"] = {"oid": file.oid, "size": len(file.content), "pointerSize": 130}
    return entry
