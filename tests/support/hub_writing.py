"""The answers of the tests' local Hub to writing clients, like those of huggingface.co."""

import base64
import hashlib
import json

import yaml
from hub_reading import Answer, Reading, Refused
from hub_repositories import LFS_SUFFIXES, Repository, StoredFile, front_matter


class Writing(Reading):
    """The requests of Reading, and those that change something."""

    def create(self):
        rights = self._rights()
        if "write" not in rights:
            raise Refused(403 if rights else 401, "", "You need a token with write permission")
        given = self.request.json()
        repo_id = f"{given.get('organization') or 'writer'}/{given['name']}"
        answer = {"url": f"{self.hub.url}/{repo_id}", "name": repo_id, "id": repo_id}
        if repo_id in self.hub.repositories:
            return Answer(409, json.dumps(answer | {"error": "You already created this model repo"}).encode())
        private = given.get("visibility") == "private" or bool(given.get("private"))
        self.hub.repositories[repo_id] = Repository(repo_id, private=private)
        return answer

    def validate(self):
        try:
            data = front_matter(self.request.json()["content"])
        except yaml.YAMLError as error:
            return Answer(400, json.dumps({"errors": [{"message": str(error)}], "warnings": []}).encode())
        warnings = [] if data else [{"message": "empty or missing yaml metadata in repo card"}]
        return {"errors": [], "warnings": warnings}

    def branch(self, repo: str, revision: str):
        repository = self._repository(repo, "write")
        if revision in repository.branches:
            raise Refused(409, "", "Reference already exists")
        start = self.request.json().get("startingPoint", "main")
        repository.branches[revision] = self._commit_of(repository, start).sha
        return {}

    def preupload(self, repo: str, revision: str):
        files = self._commit_of(self._repository(repo, "write"), revision).files
        answer = []
        for file in self.request.json()["files"]:
            mode = "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular"
            entry = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
            answer.append(entry | ({"oid": files[file["path"]].oid} if file["path"] in files else {}))
        return {"files": answer}

    def batch(self, repo: str):
        self._repository(repo, "write")
        objects = []
        for given in self.request.json()["objects"]:
            actions = {
                "upload": {"href": f"{self.hub.url}/lfs/{given['oid']}?X-Amz-Signature=signed"},
                "verify": {"href": f"{self.hub.url}/{repo}.git/info/lfs/verify"},
            }
            objects.append(given | ({} if given["oid"] in self.hub.large_files else {"actions": actions}))
        return {"transfer": "basic", "objects": objects}

    def upload(self, oid: str):
        if hashlib.sha256(self.request.body).hexdigest() != oid:
            raise Refused(400, "", "the content is not what its hash says")
        self.hub.large_files[oid] = self.request.body
        return {}

    def verify(self, repo: str):
        self._repository(repo, "write")
        given = self.request.json()
        if len(self.hub.large_files.get(given["oid"], b"")) != given["size"]:
            raise Refused(404, "", "was not uploaded")
        return {}

    def commit(self, repo: str, revision: str):
        repository = self._repository(repo, "write")
        head = self._commit_of(repository, revision)
        added, removed, header = {}, [], {}
        for line in self.request.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            match item["key"]:
                case "header":
                    header = value
                case "file":
                    added[value["path"]] = StoredFile(base64.b64decode(value["content"]), lfs=False)
                case "lfsFile" if value["oid"] in self.hub.large_files:
                    added[value["path"]] = StoredFile(self.hub.large_files[value["oid"]], lfs=True)
                case "deletedFile" if value["path"] in head.files:
                    removed.append(value["path"])
                case _:
                    raise Refused(400, "", f"cannot be committed: {value}")
        if header.get("parentCommit", head.sha) != head.sha:
            raise Refused(412, "", "A commit has happened since. Please refresh and try again.")
        branch = revision
        if self.request.query.get("create_pr"):
            branch = f"refs/pr/{1 + sum(name.startswith('refs/pr/') for name in repository.branches)}"
            repository.branches[branch] = repository.branches.get(revision, head.sha)
        commit = repository.commit(branch, header["summary"], added, tuple(removed))
        url = f"{self.hub.url}/{repo}"
        number = branch.rpartition("/")[2]
        return {
            "commitUrl": f"{url}/commit/{commit.sha}",
            "commitOid": commit.sha,
            "pullRequestUrl": f"{url}/discussions/{number}" if branch.startswith("refs/pr/") else None,
        }
