"""The hub: its cache layout, offline mode, and its answers turned into one line each. A small server here stands for it."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from shutil import copy

import pytest
from huggingface_hub import constants

from interp.errors import ModelError
from interp.models.cache import cached_models
from interp.models.hub import wanted_files
from interp.models.loading import load_parts
from interp.models.progress import silent

COMMIT = "a" * 40


@pytest.fixture
def hub_cache(tmp_path, monkeypatch, empty_cache) -> Path:
    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(folder))
    return folder


@pytest.fixture
def cached(hub_cache, saved_model) -> Path:
    """``org/tiny`` as the hub's client lays it out: blobs, and links to them in a snapshot."""
    repository = hub_cache / "models--org--tiny"
    snapshot, blobs = repository / "snapshots" / COMMIT, repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for index, path in enumerate(sorted(saved_model().iterdir())):
        path.rename(blobs / str(index))
        (snapshot / path.name).symlink_to(Path("../../blobs") / str(index))
    return snapshot


def load(name: str, **options):
    return load_parts(name, **({"device": "cpu", "progress": silent} | options))


def test_a_cached_repository_loads_without_a_network(cached) -> None:
    source = load("org/tiny").source
    assert (source.name, source.revision, source.path) == ("org/tiny", COMMIT, cached)
    assert load("org/tiny", revision=COMMIT, offline=True).source.path == cached
    assert [(model.name, model.store) for model in cached_models()] == [("org/tiny", "huggingface")]


def test_links_count_once_in_the_size(cached) -> None:
    (model,) = cached_models()
    assert model.bytes == sum(path.stat().st_size for path in cached.iterdir()) + len(COMMIT)


def test_offline_names_what_is_cached(cached) -> None:
    with pytest.raises(
        ModelError, match=r"org/other is not cached and offline mode is on; cached here: org/tiny; run `interp"
    ):
        load("org/other", offline=True)
    with pytest.raises(ModelError, match="org/tiny@v2 is not cached and offline mode is on"):
        load("org/tiny", revision="v2", offline=True)


@pytest.mark.parametrize("revision", ["../../../elsewhere", "/etc"])
def test_a_revision_stays_in_the_repository(cached, revision) -> None:
    with pytest.raises(ModelError, match="is no revision; give a branch, tag or commit of org/tiny"):
        load("org/tiny", revision=revision, offline=True)


def test_a_half_fetched_repository_is_not_taken_for_the_model(cached) -> None:
    (cached / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="is not cached and offline mode is on"):
        load("org/tiny", offline=True)


@pytest.mark.parametrize("name", ["a--b/c", "x" * 120 + "/y", "a/..b"])
def test_ids_that_the_hub_does_not_allow(name, hub_cache) -> None:
    with pytest.raises(ModelError, match="is no Hugging Face id") as caught:
        load(name)
    assert "\n" not in str(caught.value)


def test_what_is_wanted_of_a_repository() -> None:
    names = ["config.json", "tokenizer.json", "merges.txt", "chat_template.jinja", "README.md", "pytorch_model.bin"]
    names += ["onnx/model.onnx", "original/consolidated.safetensors", "tokenizer.model", "modeling_x.py", "a.gguf"]
    settings = ["chat_template.jinja", "config.json", "merges.txt", "tokenizer.json", "tokenizer.model"]
    assert wanted_files("a/b", [*names, "model.safetensors"]) == [*settings, "model.safetensors"]
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = "model.safetensors.index.json"
    assert wanted_files("a/b", [*names, index, *shards, "consolidated.safetensors"]) == [*settings, index, *shards]
    with pytest.raises(ModelError, match="holds its weights as a pickle, which is never read"):
        wanted_files("a/b", names)
    with pytest.raises(ModelError, match=r"holds no model.safetensors"):
        wanted_files("a/b", ["README.md"])


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does, for one public repository in ``folder``, one gated and one that is not there."""

    folder: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/api/models/org/tiny/revision/nope"):
            return self.reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body)
        if self.path.startswith("/api/models/org/tiny/tree"):
            return self.reply(200, json.dumps(self.tree()).encode(), {}, body)
        if self.path.startswith("/api/models/org/tiny"):
            return self.reply(200, json.dumps(self.about()).encode(), {}, body)
        if self.path.startswith("/org/tiny/resolve/"):
            content = (self.folder / self.path.split("?")[0].rpartition("/")[2]).read_bytes()
            headers = {"ETag": f'"{len(content):040x}"', "X-Repo-Commit": COMMIT}
            return self.reply(200, content, headers, body)
        code = "GatedRepo" if "gated" in self.path or "Llama" in self.path else "RepoNotFound"
        return self.reply(403 if code == "GatedRepo" else 404, b"{}", {"X-Error-Code": code}, body)

    def about(self) -> dict[str, object]:
        files = [{"rfilename": path.name, "size": path.stat().st_size} for path in self.folder.iterdir()]
        return {"id": "org/tiny", "modelId": "org/tiny", "sha": COMMIT, "siblings": files}

    def tree(self) -> list[dict[str, object]]:
        return [
            {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": f"{index:040x}"}
            for index, path in enumerate(self.folder.iterdir())
        ]

    def reply(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(hub_cache, saved_model, monkeypatch) -> Iterator[type[Hub]]:
    """A server on this machine that the hub's client takes for the hub."""
    folder = saved_model(name="published")
    (folder / "README.md").write_text("not needed")
    handler = type("ThisHub", (Hub,), {"folder": folder, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_model_is_fetched_once_and_only_what_is_needed(hub, capfd) -> None:
    seen = []
    parts = load("org/tiny", progress=lambda what, done, total: seen.append((what, done, total)))
    assert parts.source.revision == COMMIT
    assert {path.name for path in parts.source.path.iterdir()} == {
        path.name for path in hub.folder.iterdir() if path.name != "README.md"
    }
    total = sum((hub.folder / path.name).stat().st_size for path in parts.source.path.iterdir())
    assert seen[0] == ("fetching org/tiny", 0, total)
    assert seen[-1] == ("fetching org/tiny", total, total)
    assert capfd.readouterr() == ("", "")
    hub.asked.clear()
    load("org/tiny")
    assert hub.asked == []


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("org/absent", {}, "the hub has no model 'org/absent'; check the spelling"),
        ("org/gated", {}, r"org/gated is gated: .*`hf auth login`"),
        ("llama-3.2-1b", {}, r"Llama-3.2-1B is gated: .*`interp models fetch meta-llama/Llama-3.2-1B`"),
        ("org/tiny", {"revision": "nope"}, "org/tiny has no revision 'nope'"),
    ],
)
def test_what_the_hub_answers_is_one_line(hub, name, options, expected) -> None:
    with pytest.raises(ModelError, match=expected) as caught:
        load(name, **options)
    assert "\n" not in str(caught.value)


def test_an_unreachable_hub_is_one_line(hub, monkeypatch) -> None:
    nowhere = "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", nowhere)
    expected = r"org/tiny is not cached and the hub cannot be reached \(.*nothing is cached here yet"
    with pytest.raises(ModelError, match=expected) as caught:
        load("org/tiny")
    assert "\n" not in str(caught.value)


def test_a_repository_of_pickles_is_refused_before_fetching(hub) -> None:
    (hub.folder / "model.safetensors").rename(hub.folder / "pytorch_model.bin")
    copy(hub.folder / "config.json", hub.folder / "generation_config.json")
    with pytest.raises(ModelError, match="org/tiny holds its weights as a pickle"):
        load("org/tiny")
    assert not any("resolve" in path for path in hub.asked)
