"""A small Hub on loopback: the documented endpoints that huggingface_hub's client calls.

Accounts, repository creation, metadata checks, preupload, LFS, commits, branches, trees, downloads
(https://huggingface.co/docs/hub/api, https://github.com/git-lfs/git-lfs/blob/main/docs/api), and
large files by redirection, with ETag, X-Repo-Commit and X-Linked-Size as from the real one.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from tests.hub.handler import Answer, Handler, Hub
from tests.hub.store import LARGE, Blob, Repo, complaints, entry, listing, metadata
from tests.hub.xet import xet_hash


def at(handler: Handler, repo: str, revision: str) -> Any:
    commit = handler.reading(repo).at(revision)
    if commit is None:
        raise Answer(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
    return commit


def whoami(handler: Handler) -> None:
    if not handler.known:
        raise Answer(401, {"error": "Invalid username or password."})
    raise Answer(200, {"type": "user", "name": "me", "orgs": []})


def create(handler: Handler) -> None:
    asked = handler.json()
    name = f"{asked.get('organization') or 'me'}/{asked['name']}"
    key, url = f"{asked.get('type', 'model')}s/{name}", f"{handler.hub.url}/{name}"
    if not handler.writer or not name.startswith("me/"):
        said = (
            f"You don't have the rights to create a model under the namespace {name.split('/')[0]}"
        )
        status = 403 if handler.known else 401
        raise Answer(status, {"error": said}, X_Error_Message=said)
    if key in handler.hub.repos:
        raise Answer(409, {"error": "You already created this model repo", "url": url})
    handler.hub.repos[key] = Repo(private=asked.get("visibility") == "private")
    raise Answer(200, {"url": url, "name": name, "id": "x"})


def validate(handler: Handler) -> None:
    errors = [{"message": said} for said in complaints(handler.json()["content"])]
    raise Answer(400 if errors else 200, {"errors": errors, "warnings": []})


def info(handler: Handler, repo: str, revision: str = "") -> None:
    commit = at(handler, repo, revision or "main")
    name, found = repo.split("/", 1)[1], handler.reading(repo)
    card = commit.files.get("README.md", Blob(b"", False)).data.decode()
    raise Answer(200, {"id": name, "modelId": name, "author": name.split("/")[0],
                       "sha": commit.oid, "private": found.private, "gated": False,
                       "disabled": False, "tags": [], "cardData": metadata(card),
                       "siblings": [{"rfilename": path} for path in commit.files]})  # fmt: skip


def branch(handler: Handler, repo: str, branch: str) -> None:
    found = handler.writing(repo)
    if branch in found.branches:
        raise Answer(409, {"error": "Reference already exists"})
    found.branches[branch] = list(found.branches["main"])
    raise Answer(200, {})


def preupload(handler: Handler, repo: str, revision: str) -> None:
    found = handler.writing(repo)
    if revision not in found.branches:
        raise Answer(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
    there = found.branches[revision][-1].files
    said = []
    for file in handler.json()["files"]:
        mode = "lfs" if file["path"].endswith(LARGE) else "regular"
        known = {"oid": there[file["path"]].etag} if file["path"] in there else {}
        ignored = file["path"] in handler.hub.ignored
        said.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": ignored, **known})
    raise Answer(200, {"files": said})


def lfs_batch(handler: Handler, repo: str) -> None:
    handler.writing(f"models/{repo}")
    asked, said = handler.json(), []
    for thing in asked["objects"]:
        upload = {"href": f"{handler.hub.storage}/storage/{thing['oid']}?signature=sesame"}
        actions = {"upload": upload, "verify": {"href": f"{handler.hub.url}/{repo}.git/verify"}}
        absent = thing["oid"] not in handler.hub.large
        said.append({**thing, **({"actions": actions} if absent else {})})
    raise Answer(200, {"transfer": "basic", "objects": said})


def store(handler: Handler, oid: str) -> None:
    if hashlib.sha256(handler.body).hexdigest() != oid:
        raise Answer(400, {"error": "the bytes are not those announced"})
    handler.hub.large[oid] = handler.body
    raise Answer(200, b"")


def fetch(handler: Handler, oid: str) -> None:
    raise Answer(200, handler.hub.large[oid], ETag=f'"{oid}"')


def verify(handler: Handler, repo: str) -> None:
    asked = handler.json()
    if len(handler.hub.large.get(asked["oid"], b"")) != asked["size"]:
        raise Answer(422, {"error": "not there"})
    raise Answer(200, {})


def commit(handler: Handler, repo: str, revision: str) -> None:
    """All of it or nothing."""
    found = handler.writing(repo)
    lines = [json.loads(line) for line in handler.body.splitlines()]
    header, changes = lines[0]["value"], {}
    for line in lines[1:]:
        value = line["value"]
        if line["key"] == "file":
            changes[value["path"]] = Blob(base64.b64decode(value["content"]), False)
        elif line["key"] == "lfsFile" and value["oid"] in handler.hub.large:
            changes[value["path"]] = Blob(handler.hub.large[value["oid"]], True)
        elif handler.hub.xet and (name := xet_hash(handler.hub.xet, value["oid"])):
            changes[value["path"]] = Blob(b"", True, (value["oid"], value["size"], name))
        else:
            raise Answer(422, {"error": f"{value['path']} was not uploaded"})
    made = found.commit(revision, header["summary"], changes)
    url = f"{handler.hub.url}/{repo.split('/', 1)[1]}/commit/{made.oid}"
    raise Answer(200, {"success": True, "commitOid": made.oid, "commitUrl": url})


def xet_token(handler: Handler, repo: str, revision: str, kind: str) -> None:
    """Where the Xet store is; hf_xet takes a folder for one."""
    handler.reading(repo) if kind == "read" else handler.writing(repo)
    if handler.hub.xet is None:
        raise Answer(404, {"error": "Not found"})
    said = {"accessToken": "sesame", "exp": 1 << 40, "casUrl": f"local://{handler.hub.xet}"}
    raise Answer(200, said, X_Xet_Cas_Url=said["casUrl"], X_Xet_Access_Token="sesame",
                 X_Xet_Token_Expiration=str(1 << 40))  # fmt: skip


def tree(handler: Handler, repo: str, revision: str, folder: str = "") -> None:
    recursive = handler.query.get("recursive", ["false"])[0].lower() in ("true", "1")
    raise Answer(200, listing(at(handler, repo, revision), folder.strip("/"), recursive))


def paths_info(handler: Handler, repo: str, revision: str) -> None:
    files = at(handler, repo, revision).files
    asked = parse_qs(handler.body.decode()).get("paths", [])
    raise Answer(200, [entry(path, files[path]) for path in asked if path in files])


def resolve(handler: Handler, repo: str, revision: str, path: str, kind: str = "") -> None:
    commit = at(handler, f"{kind or 'models/'}{repo}", revision)
    blob = commit.files.get(path)
    if blob is None:
        said = "Entry not found"
        raise Answer(404, {"error": said}, X_Error_Code="EntryNotFound", X_Error_Message=said,
                     X_Repo_Commit=commit.oid)  # fmt: skip
    headers = {"X_Repo_Commit": commit.oid, "ETag": f'"{blob.etag}"', "Accept_Ranges": "bytes"}
    if blob.lfs:
        linked = {"X_Linked_Size": str(blob.size), "X_Linked_ETag": f'"{blob.etag}"'}
        if blob.xet:
            route = f"{handler.hub.url}/api/models/{repo}/xet-read-token/{commit.oid}"
            linked |= {"X_Xet_Hash": blob.xet[2], "X_Xet_Refresh_Route": route}
        place = f"{handler.hub.storage}/storage/{blob.sha256}?signature=sesame"
        raise Answer(302, b"", Location=place, **headers, **linked)
    raise Answer(200, blob.data, **headers)


_REPO = r"(?P<repo>(models|datasets)/[^/]+/[^/]+)"
_NAME = r"(?P<repo>[^/]+/[^/]+)"
_AT = r"(?P<revision>[^/]+)"
ROUTES: tuple[tuple[str, str, Callable[..., None]], ...] = (
    ("GET", "/api/whoami-v2", whoami),
    ("POST", "/api/repos/create", create),
    ("POST", "/api/validate-yaml", validate),
    ("GET", f"/api/{_REPO}", info),
    ("GET", f"/api/{_REPO}/revision/{_AT}", info),
    ("POST", f"/api/{_REPO}/branch/(?P<branch>.+)", branch),
    ("POST", f"/api/{_REPO}/preupload/{_AT}", preupload),
    ("POST", f"/api/{_REPO}/commit/{_AT}", commit),
    ("GET", f"/api/{_REPO}/xet-(?P<kind>read|write)-token/{_AT}", xet_token),
    ("GET", f"/api/{_REPO}/tree/{_AT}(?P<folder>/.*)?", tree),
    ("POST", f"/api/{_REPO}/paths-info/{_AT}", paths_info),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", lfs_batch),
    ("POST", rf"/{_NAME}\.git/verify", verify),
    ("PUT", "/storage/(?P<oid>[0-9a-f]{64})", store),
    ("GET HEAD", "/storage/(?P<oid>[0-9a-f]{64})", fetch),
    ("GET HEAD", f"/(?P<kind>datasets/)?{_NAME}/resolve/{_AT}/(?P<path>.+)", resolve),
)


@contextmanager
def running() -> Iterator[Hub]:
    """A Hub that listens on a free port of this machine."""
    hub = Hub()
    handler = type("Bound", (Handler,), {"hub": hub, "routes": ROUTES})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    hub.storage = hub.url.replace("127.0.0.1", "localhost")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
