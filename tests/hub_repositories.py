"""What the local Hub of the tests stores: repositories with commits, branches, and files in git or in LFS."""

import hashlib
import itertools
from dataclasses import dataclass, field

import yaml

#: As on the Hub, these go to large file storage whatever their size.
LFS_SUFFIXES = (".safetensors", ".bin", ".pt")


@dataclass(frozen=True)
class StoredFile:
    content: bytes
    lfs: bool

    @property
    def oid(self) -> str:
        """What a client compares its own file with: sha256 in LFS, else git's hash of a blob."""
        if self.lfs:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass(frozen=True)
class Commit:
    sha: str
    message: str
    files: dict[str, StoredFile]


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
        sha = self.branches.get(name, name)
        return next((commit for commit in self.commits if commit.sha == sha), None)

    @property
    def card_data(self) -> dict:
        readme = self.revision("main").files.get("README.md")
        parts = readme.content.decode().split("---\n") if readme else []
        return yaml.safe_load(parts[1]) if len(parts) > 2 and not parts[0] else {}

    @property
    def tags(self) -> list[str]:
        """From the card's metadata, as the Hub makes them."""
        data = self.card_data
        bases = data.get("base_model") or []
        bases = [bases] if isinstance(bases, str) else bases
        library = [data["library_name"]] if "library_name" in data else []
        return [
            *library,
            *(data.get("tags") or []),
            *(f"base_model:{kind}{base}" for base in bases for kind in ("", "finetune:")),
        ]

    def info(self, commit: Commit) -> dict:
        return {
            "id": self.id,
            "modelId": self.id,
            "sha": commit.sha,
            "private": self.private,
            "gated": "manual" if self.gated else False,
            "tags": self.tags,
            "cardData": self.card_data,
            "downloads": 0,
            "likes": 0,
            "siblings": [{"rfilename": path} for path in sorted(commit.files)],
        }


def listed(path: str, file: StoredFile) -> dict:
    """An entry of a tree."""
    entry = {"type": "file", "path": path, "size": len(file.content), "oid": file.oid}
    if file.lfs:
        entry["lfs"] = {"oid": file.oid, "size": len(file.content), "pointerSize": 130}
    return entry
