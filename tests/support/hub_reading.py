"""The answers of the tests' local Hub to reading clients, like those of huggingface.co."""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from hub_repositories import Commit, Repository, listed

#: What each may do. A gated repository lets in whom it knows.
TOKENS = {"hf_writer": {"read", "write", "gate"}, "hf_member": {"read", "gate"}, "hf_reader": {"read"}}

# What a list of models says of each unless asked for more
_ALWAYS = ("id", "modelId", "private", "tags", "library_name", "pipeline_tag", "createdAt", "downloads", "likes")
_IN_FULL = ("author", "sha", "gated", "lastModified", "siblings")
_QUESTIONS = {"filter", "author", "search", "sort", "limit", "full", "cardData", "expand"}


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


class Refused(Exception):
    """A refusal, with the code by which clients recognise the reason."""

    def __init__(self, status: int, code: str = "", message: str = "", **headers: str):
        self.status, self.message = status, message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.headers |= {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})

    def answer(self) -> Answer:
        return Answer(self.status, json.dumps({"error": self.message}).encode(), self.headers)


@dataclass(frozen=True)
class Request:
    #: The HubServer
    hub: Any
    headers: Mapping[str, str]
    query: dict[str, list[str]]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body or b"{}")


class Reading:
    """A method for every kind of request: returned are what becomes JSON, or an Answer."""

    def __init__(self, request: Request):
        self.request, self.hub = request, request.hub

    # Who is asking, and for what

    def _rights(self) -> set[str]:
        token = (self.request.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in TOKENS:
            raise Refused(401, "", "Invalid credentials in Authorization header")
        return TOKENS.get(token, set())

    def _repository(self, repo: str, permission: str | None = None) -> Repository:
        rights = self._rights()
        repository = self.hub.repositories.get(repo)
        if repository is None or (repository.private and "read" not in rights):
            # The Hub does not reveal which private repositories exist
            raise Refused(404 if rights else 401, "RepoNotFound", "Repository not found")
        if permission is not None and permission not in rights:
            raise Refused(403 if rights else 401, "", f"Your token has no {permission} permission")
        return repository

    def _commit_of(self, repository: Repository, revision: str) -> Commit:
        commit = repository.revision(revision)
        if commit is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _files(self, repo: str, revision: str) -> dict[str, Any]:
        return self._commit_of(self._repository(repo), revision).files

    # Answers

    def whoami(self):
        if not self._rights():
            raise Refused(401, "", "Invalid username or password.")
        token = self.request.headers["Authorization"].removeprefix("Bearer ")
        role = "write" if "write" in TOKENS[token] else "read"
        return {
            "type": "user",
            "name": token.removeprefix("hf_"),
            "orgs": [],
            "auth": {"accessToken": {"displayName": token, "role": role}},
        }

    def models(self):
        query = self.request.query
        if unknown := query.keys() - _QUESTIONS:
            raise Refused(400, "", f"this Hub does not know {', '.join(sorted(unknown))}")
        rights = self._rights()
        infos = [
            repository.info(repository.revision("main"))
            for repository in self.hub.repositories.values()
            if not repository.private or rights
        ]
        for name, holds in {
            "filter": lambda info, tag: tag in (*info["tags"], info["pipeline_tag"]),
            "author": lambda info, author: info["author"] == author,
            "search": lambda info, text: text.lower() in info["id"].lower(),
        }.items():
            infos = [info for info in infos if all(holds(info, value) for value in query.get(name, []))]
        shown = (*_ALWAYS, *(_IN_FULL if "full" in query else ()), *(("cardData",) if "cardData" in query else ()))
        return [self._shown(info, shown) for info in infos[: int(query.get("limit", [1000])[0])]]

    def info(self, repo: str, revision: str = "main"):
        repository = self._repository(repo)
        info = repository.info(self._commit_of(repository, revision))
        return self._shown(info, tuple(name for name in info if name != "evalResults"))

    def bare_name(self, name: str):
        """Models from before there were organisations are redirected from their old names."""
        self._repository(self.hub.bare_names.get(name, name))
        return Answer(307, b"", {"Location": f"/api/models/{self.hub.bare_names[name]}"})

    def _shown(self, info: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
        expand = self.request.query.get("expand")
        names = ("id", *expand) if expand else names
        if unknown := set(names) - info.keys():
            raise Refused(400, "", f"this Hub does not know {', '.join(sorted(unknown))}")
        return {name: info[name] for name in names}

    def tree(self, repo: str, revision: str, folder: str = ""):
        prefix = folder.rstrip("/") + "/" if folder else ""
        inside = {path: file for path, file in self._files(repo, revision).items() if path.startswith(prefix)}
        if folder and not inside:
            raise Refused(404, "EntryNotFound", f"{folder} does not exist on {revision}")
        if self.request.query.get("recursive") in (["True"], ["true"]):
            return [listed(path, file) for path, file in sorted(inside.items())]
        here = {path: file for path, file in inside.items() if "/" not in path.removeprefix(prefix)}
        folders = {prefix + path.removeprefix(prefix).partition("/")[0] for path in inside.keys() - here.keys()}
        return [
            *({"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in sorted(folders)),
            *(listed(path, file) for path, file in sorted(here.items())),
        ]

    def paths(self, repo: str, revision: str):
        files = self._files(repo, revision)
        wanted = parse_qs(self.request.body.decode()).get("paths", [])
        return [listed(path, files[path]) for path in wanted if path in files]

    def commits(self, repo: str, revision: str):
        self._files(repo, revision)
        return self.hub.repositories[repo].history()

    def discussions(self, repo: str):
        self._repository(repo)
        return {"discussions": [], "count": 0, "start": 0}

    def resolve(self, repo: str, revision: str, file: str):
        repository = self._repository(repo)
        commit = self._commit_of(repository, revision)
        if repository.gated and "gate" not in self._rights():
            raise Refused(403 if self._rights() else 401, "GatedRepo", "Access to this model is restricted")
        if file not in commit.files:
            raise Refused(404, "EntryNotFound", "Entry not found", X_Repo_Commit=commit.sha)
        stored = commit.files[file]
        headers = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes"}
        if self.hub.xet_endpoint and stored.lfs:
            headers["X-Xet-Hash"] = stored.oid
            headers["X-Xet-Refresh-Route"] = f"{self.hub.url}/api/models/{repo}/xet-read-token/{commit.sha}"
        if not stored.lfs:
            return self._serve(stored.content, headers | {"ETag": f'"{stored.oid}"'})
        self.hub.large_files[stored.oid] = stored.content
        headers |= {"X-Linked-ETag": f'"{stored.oid}"', "X-Linked-Size": str(len(stored.content))}
        # As on the Hub, from another origin, to which no token may be sent
        headers["Location"] = f"http://localhost:{self.hub.port}/lfs/{stored.oid}/{file}"
        return Answer(302, b"", headers)

    def xet_token(self, repo: str, permission: str, revision: str):
        """Where the storage of large files is that clients with hf_xet go to, and what lets them in."""
        self._repository(repo, "write" if permission == "write" else None)
        expires = int(time.time()) + 3600
        answer = {"accessToken": "xet", "exp": expires, "casUrl": self.hub.xet_endpoint}
        headers = {
            "X-Xet-Cas-Url": self.hub.xet_endpoint,
            "X-Xet-Access-Token": "xet",
            "X-Xet-Token-Expiration": str(expires),
        }
        return Answer(200, json.dumps(answer).encode(), headers)

    def large_file(self, oid: str):
        if self.request.headers.get("Authorization"):
            raise Refused(400, "", "a token was sent to another origin")
        if oid not in self.hub.large_files:
            raise Refused(404, "", "no such file")
        return self._serve(self.hub.large_files[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})

    def _serve(self, content: bytes, headers: dict[str, str]) -> Answer:
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.request.headers.get("Range") or "")
        if not found:
            return Answer(200, content, headers)
        first, last = int(found[1]), min(int(found[2] or len(content)), len(content) - 1)
        if first > last:
            raise Refused(416, "", "not in this file", Content_Range=f"bytes */{len(content)}")
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return Answer(206, content[first : last + 1], headers)
