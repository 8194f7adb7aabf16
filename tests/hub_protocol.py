"""What the local Hub of the tests answers to each request, as huggingface.co answers it."""

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub_repositories import LFS_SUFFIXES, Commit, Repository, StoredFile, listed

#: What each may do. A gated repository lets "hf_member" in.
TOKENS = {"hf_writer": {"read", "write", "gate"}, "hf_member": {"read", "gate"}, "hf_reader": {"read"}}


class _Refused(Exception):
    def __init__(self, status: int, code: str = "", message: str = "", **headers: str):
        self.status, self.code, self.message, self.headers = status, code, message, headers


_MODEL = r"(?P<repo>[^/]+/[^/]+)"
_ROUTES = [
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate"),
    ("GET", r"/api/models", "models"),
    ("GET", rf"/api/models/{_MODEL}", "info"),
    ("GET", rf"/api/models/{_MODEL}/revision/(?P<revision>[^/]+)", "info"),
    ("GET", rf"/api/models/{_MODEL}/tree/(?P<revision>[^/]+)", "tree"),
    ("POST", rf"/api/models/{_MODEL}/paths-info/(?P<revision>[^/]+)", "paths"),
    ("POST", rf"/api/models/{_MODEL}/branch/(?P<revision>[^/]+)", "branch"),
    ("POST", rf"/api/models/{_MODEL}/preupload/(?P<revision>[^/]+)", "preupload"),
    ("POST", rf"/api/models/{_MODEL}/commit/(?P<revision>[^/]+)", "commit"),
    ("GET", rf"/api/models/{_MODEL}/commits/(?P<revision>[^/]+)", "commits"),
    ("GET", rf"/api/models/{_MODEL}/discussions", "discussions"),
    ("POST", rf"/{_MODEL}\.git/info/lfs/objects/batch", "batch"),
    ("POST", rf"/{_MODEL}\.git/info/lfs/verify", "verify"),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "upload"),
    ("GET", r"/lfs/(?P<oid>[0-9a-f]{64})/.+", "large_file"),
    ("GET", rf"/{_MODEL}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", "resolve"),
]


class Handler(BaseHTTPRequestHandler):
    #: The HubServer
    hub: Any
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        self.hub.requests.append(f"{self.command} {self.path}")
        split = urlsplit(self.path)
        self.query = parse_qs(split.query)
        self.fault = self.hub.next_fault(self.command, unquote(self.path))
        try:
            if self.fault is not None and self.fault.status is not None:
                raise _Refused(self.fault.status, "", "told to fail", **dict(self.fault.headers))
            method = "GET" if self.command == "HEAD" else self.command
            for verb, pattern, name in _ROUTES:
                found = re.fullmatch(pattern, split.path)
                if found and verb == method:
                    with self.hub.lock:
                        answer = getattr(self, f"_{name}")(
                            **{key: unquote(value) for key, value in found.groupdict().items()}
                        )
                    break
            else:
                raise _Refused(404, "", f"no such path: {self.path}")
        except _Refused as refused:
            headers = {name.replace("_", "-"): value for name, value in refused.headers.items()}
            if refused.code:
                headers["X-Error-Code"] = refused.code
            headers["X-Error-Message"] = refused.message
            self._send(refused.status, json.dumps({"error": refused.message}).encode(), headers)
            return
        if answer is not None:
            self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        size = len(body)
        if self.fault is not None and self.fault.change is not None:
            body = self.fault.change(body)
        self.send_response(status)
        for name, value in {"Content-Length": str(size)}.items() | headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault is not None and self.fault.cut_after is not None:
            body = body[: self.fault.cut_after]
        self.close_connection = len(body) < size
        self.wfile.write(body[:size])

    # Who is asking, and for what

    def _rights(self) -> set[str]:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in TOKENS:
            raise _Refused(401, "", "Invalid credentials in Authorization header")
        return TOKENS.get(token, set())

    def _repository(self, repo: str, right: str | None = None) -> Repository:
        rights = self._rights()
        repository = self.hub.repositories.get(repo)
        if repository is None or (repository.private and "read" not in rights):
            # The Hub does not tell strangers which private repositories there are
            raise _Refused(404 if rights else 401, "RepoNotFound", "Repository not found")
        if right is not None and right not in rights:
            raise _Refused(403, "", "Your token has no write permission")
        return repository

    def _commit_of(self, repository: Repository, revision: str) -> Commit:
        commit = repository.revision(revision)
        if commit is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    # Reading

    def _models(self):
        wanted = self.query.get("filter", [])
        repositories = [repo for repo in self.hub.repositories.values() if not repo.private or self._rights()]
        found = [repo for repo in repositories if all(tag in repo.tags for tag in wanted)]
        return [repo.info(repo.revision("main")) for repo in found]

    def _info(self, repo: str, revision: str = "main"):
        repository = self._repository(repo)
        return repository.info(self._commit_of(repository, revision))

    def _tree(self, repo: str, revision: str):
        files = self._commit_of(self._repository(repo), revision).files
        return [listed(path, file) for path, file in sorted(files.items())]

    def _paths(self, repo: str, revision: str):
        files = self._commit_of(self._repository(repo), revision).files
        wanted = parse_qs(self.body.decode()).get("paths", [])
        return [listed(path, files[path]) for path in wanted if path in files]

    def _commits(self, repo: str, revision: str):
        self._commit_of(self._repository(repo), revision)
        date = "2026-01-01T00:00:00.000Z"
        return [
            {"id": commit.sha, "title": commit.message, "message": "", "date": date, "authors": []}
            for commit in reversed(self.hub.repositories[repo].commits)
        ]

    def _discussions(self, repo: str):
        self._repository(repo)
        return {"discussions": [], "count": 0, "start": 0}

    def _resolve(self, repo: str, revision: str, file: str):
        repository = self._repository(repo)
        commit = self._commit_of(repository, revision)
        if repository.gated and "gate" not in self._rights():
            raise _Refused(403, "GatedRepo", "Access to this model is restricted")
        if file not in commit.files:
            raise _Refused(404, "EntryNotFound", "Entry not found", X_Repo_Commit=commit.sha)
        stored = commit.files[file]
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{stored.oid}"', "Accept-Ranges": "bytes"}
        if not stored.lfs:
            self._serve(stored.content, headers)
            return
        self.hub.large_files[stored.oid] = stored.content
        headers |= {"X-Linked-ETag": headers.pop("ETag"), "X-Linked-Size": str(len(stored.content))}
        headers["Location"] = f"http://localhost:{self.hub.port}/lfs/{stored.oid}/{file}"
        self._send(302, b"", headers)

    def _large_file(self, oid: str):
        if self.headers.get("Authorization"):
            raise _Refused(400, "", "a token was sent to the CDN")
        self._serve(self.hub.large_files[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})

    def _serve(self, content: bytes, headers: dict[str, str]) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not found:
            self._send(200, content, headers)
            return
        first, last = int(found[1]), int(found[2] or len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self._send(206, content[first : last + 1], headers)

    # Writing

    def _create(self):
        if "write" not in self._rights():
            raise _Refused(401 if not self._rights() else 403, "", "You need a token that may write")
        given = json.loads(self.body)
        repo_id = f"{given['organization'] or 'writer'}/{given['name']}"
        answer = {"url": f"{self.hub.url}/{repo_id}", "name": repo_id, "id": repo_id}
        if repo_id in self.hub.repositories:
            self._send(409, json.dumps(answer | {"error": "You already created this model repo"}).encode(), {})
            return None
        self.hub.repositories[repo_id] = Repository(repo_id, private=given.get("visibility") == "private")
        return answer

    def _validate(self):
        return {"errors": [], "warnings": []}

    def _branch(self, repo: str, revision: str):
        repository = self._repository(repo, "write")
        if revision in repository.branches:
            raise _Refused(409, "", "Reference already exists")
        start = json.loads(self.body or b"{}").get("startingPoint", "main")
        repository.branches[revision] = self._commit_of(repository, start).sha
        return {}

    def _preupload(self, repo: str, revision: str):
        files = self._commit_of(self._repository(repo, "write"), revision).files
        answer = []
        for file in json.loads(self.body)["files"]:
            mode = "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular"
            entry = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
            answer.append(entry | ({"oid": files[file["path"]].oid} if file["path"] in files else {}))
        return {"files": answer}

    def _batch(self, repo: str):
        self._repository(repo, "write")
        objects = []
        for given in json.loads(self.body)["objects"]:
            actions = {
                "upload": {"href": f"{self.hub.url}/lfs/{given['oid']}"},
                "verify": {"href": f"{self.hub.url}/{repo}.git/info/lfs/verify"},
            }
            objects.append(given | ({} if given["oid"] in self.hub.large_files else {"actions": actions}))
        return {"transfer": "basic", "objects": objects}

    def _upload(self, oid: str):
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _Refused(400, "", "the content is not what its hash says")
        self.hub.large_files[oid] = self.body
        return {}

    def _verify(self, repo: str):
        given = json.loads(self.body)
        if len(self.hub.large_files.get(given["oid"], b"")) != given["size"]:
            raise _Refused(404, "", "was not uploaded")
        return {}

    def _commit(self, repo: str, revision: str):
        repository = self._repository(repo, "write")
        self._commit_of(repository, revision)
        added, removed, message = {}, [], ""
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            match item["key"]:
                case "header":
                    message = value["summary"]
                case "file":
                    added[value["path"]] = StoredFile(base64.b64decode(value["content"]), lfs=False)
                case "lfsFile":
                    added[value["path"]] = StoredFile(self.hub.large_files[value["oid"]], lfs=True)
                case "deletedFile":
                    removed.append(value["path"])
        branch = revision
        if self.query.get("create_pr"):
            branch = f"refs/pr/{1 + sum(name.startswith('refs/pr/') for name in repository.branches)}"
            repository.branches[branch] = repository.branches[revision]
        commit = repository.commit(branch, message, added, tuple(removed))
        url = f"{self.hub.url}/{repo}"
        number = branch.rpartition("/")[2]
        return {
            "commitUrl": f"{url}/commit/{commit.sha}",
            "commitOid": commit.sha,
            "pullRequestUrl": f"{url}/discussions/{number}" if branch.startswith("refs/pr/") else None,
        }
