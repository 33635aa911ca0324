"""The service takes known kinds of images, within its limits, below its root, or says why not."""

from __future__ import annotations

import base64
import json
import threading

import anyio
import httpx2
import numpy as np
import pytest
from fastapi.testclient import TestClient

from sar_experiments.data.images import write_image
from sar_experiments.errors import SceneError
from sar_experiments.serve.app import Service, create_app

PNG_START = b"\x89PNG\r\n\x1a\n"


class Finder:
    """Finds one object at the brightest pixel; remembers what it was asked."""

    def __init__(self):
        self.calls = []
        self.at_once = 0
        self.most_at_once = 0
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, file, *, name, overview):
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.calls.append((file, name, overview, file.read_bytes()))
        self.go_on.wait(20)
        self.at_once -= 1
        if name == "broken.png":
            raise SceneError("broken.png is cut short")
        feature = {"type": "Feature", "geometry": None, "properties": {"score": 0.9}}
        found = {"type": "FeatureCollection", "features": [feature]}
        if overview:
            found["overview"] = base64.b64encode(PNG_START).decode()
        return found


@pytest.fixture
def finder():
    return Finder()


@pytest.fixture
def service_of(finder):
    def make(**changes):
        settings = {
            "model": "tiny",
            "weights": "run/model_best.pth",
            "device": "cpu",
            "classes": ("ship",),
            "min_scores": {"ship": 0.05},
            "root": None,
            "max_megabytes": 1.0,
            "max_waiting": 2,
            "hosts": ("testserver", "localhost"),
        }
        return create_app(finder, Service(**{**settings, **changes}))

    return make


@pytest.fixture
def scene(tmp_path):
    path = tmp_path / "root" / "scene.png"
    path.parent.mkdir()
    write_image(path, np.arange(64, dtype=np.uint8).reshape(8, 8))
    return path


def uploaded(client, name, content, **params):
    return client.post("/detect", files={"file": (name, content)}, params=params)


def test_health_tells_what_runs(service_of):
    health = TestClient(service_of()).get("/health").json()
    assert health["status"] == "ok"
    assert (health["model"], health["classes"], health["by_path"]) == ("tiny", ["ship"], False)


def test_health_tells_the_lowest_score_of_each_class(service_of):
    scores = {"ship": 0.6, "platform": 0.3}
    service = service_of(classes=("ship", "platform"), min_scores=scores)
    health = TestClient(service).get("/health").json()
    assert (health["min_score"], health["min_scores"]) == (0.3, scores)


def test_an_upload_comes_back_as_geojson(service_of, finder, scene):
    answer = uploaded(TestClient(service_of()), "harbour.png", scene.read_bytes())
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/geo+json"
    assert answer.json()["features"][0]["properties"]["score"] == 0.9
    assert "overview" not in answer.json()
    _, name, _, content = finder.calls[0]
    assert (name, content) == ("harbour.png", scene.read_bytes())


def test_an_overview_is_sent_where_wanted(service_of, scene):
    answer = uploaded(TestClient(service_of()), "a.png", scene.read_bytes(), overview=True)
    assert base64.b64decode(answer.json()["overview"]).startswith(PNG_START)


def test_nothing_of_an_upload_stays_on_the_disk(service_of, finder, scene):
    uploaded(TestClient(service_of()), "../../etc/evil.png", scene.read_bytes())
    path, name, *_ = finder.calls[0]
    assert (name, path.name) == ("evil.png", "evil.png")
    assert not path.parent.exists()


def test_an_image_that_cannot_be_used_is_answered_with_the_reason(service_of, scene):
    answer = uploaded(TestClient(service_of()), "broken.png", scene.read_bytes())
    assert (answer.status_code, answer.json()["detail"]) == (422, "broken.png is cut short")


def test_an_upload_keeps_a_name_that_tells_its_time(service_of, finder, scene):
    name = "s1a-iw-grd-vv-20210105t135116-x;rm -rf.png"
    uploaded(TestClient(service_of()), name, scene.read_bytes())
    assert finder.calls[0][0].name == "s1a-iw-grd-vv-20210105t135116-x_rm_-rf.png"


def test_a_form_without_a_file_says_what_is_missing(service_of, finder):
    answer = TestClient(service_of()).post("/detect", data={"name": "x"})
    assert (answer.status_code, "named file" in answer.json()["detail"]) == (422, True)
    assert not finder.calls


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.vrt", b"<VRTDataset/>"),
        ("disguised.tif", b"<VRTDataset rasterXSize='1'/>"),
        ("text.png", b"not a picture"),
        ("empty.png", b""),
        ("wrong.png", b"\xff\xd8\xff\xe0"),
        ("noname", b"II*\0"),
    ],
)
def test_a_file_of_another_kind_is_refused_before_anything_opens_it(
    service_of, finder, name, content
):
    answer = uploaded(TestClient(service_of()), name, content)
    assert answer.status_code == 415
    assert ".tif" in answer.json()["detail"]
    assert not finder.calls


def test_a_large_upload_is_refused(service_of, finder):
    answer = uploaded(TestClient(service_of(max_megabytes=0.1)), "a.tif", b"II*\0" + bytes(200_000))
    assert answer.status_code == 413
    assert "serve.max_megabytes=0.1" in answer.json()["detail"]
    assert not finder.calls


def test_a_large_upload_that_hides_its_length_is_refused(service_of, finder):
    def chunks():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.tif"\r\n\r\n'
        for _ in range(20):
            yield bytes(10_000)

    headers = {"content-type": "multipart/form-data; boundary=x"}
    client = TestClient(service_of(max_megabytes=0.1))
    answer = client.post("/detect", content=chunks(), headers=headers)
    assert answer.status_code == 413
    assert not finder.calls


def test_a_file_below_the_root_is_found_by_path(service_of, finder, scene):
    client = TestClient(service_of(root=scene.parent))
    assert client.post("/detect/path", json={"path": "scene.png"}).status_code == 200
    assert finder.calls[0][0] == scene
    assert client.get("/health").json()["by_path"]


@pytest.mark.parametrize(
    "path",
    [
        "../secret.png",
        "/etc/passwd",
        "link.png",
        "folder",
        "missing.png",
        "a\0b",
        "x" * 4000,
        "/vsicurl/http://localhost/a.tif",
    ],
)
def test_a_path_outside_the_root_is_not_there(service_of, finder, scene, path):
    secret = scene.parent.parent / "secret.png"
    secret.write_bytes(scene.read_bytes())
    (scene.parent / "link.png").symlink_to(secret)
    (scene.parent / "folder").mkdir()
    body = json.dumps({"path": path})  # a lone surrogate is sent as its escape
    headers = {"content-type": "application/json"}
    answer = TestClient(service_of(root=scene.parent)).post(
        "/detect/path", content=body, headers=headers
    )
    assert answer.status_code == 404
    assert not finder.calls


def test_a_path_that_is_no_text_is_a_mistake_of_the_client(service_of, finder, scene):
    client = TestClient(service_of(root=scene.parent))
    headers = {"content-type": "application/json"}
    answer = client.post("/detect/path", content=b'{"path": "\\ud800.png"}', headers=headers)
    assert answer.status_code == 422
    assert "body.path" in answer.json()["detail"]
    assert not finder.calls


def test_without_a_root_no_path_is_read(service_of, finder, scene):
    answer = TestClient(service_of()).post("/detect/path", json={"path": str(scene)})
    assert (answer.status_code, "serve.root" in answer.json()["detail"]) == (404, True)
    assert not finder.calls


def test_requests_take_turns_and_too_many_are_turned_away(service_of, finder, scene):
    content = scene.read_bytes()
    finder.go_on.clear()
    codes = []

    async def ask(client):
        answer = await client.post("/detect", files={"file": ("a.png", content)}, timeout=60)
        codes.append(answer.status_code)
        if answer.status_code == 503:
            assert answer.headers["retry-after"]
            finder.go_on.set()  # the one too many is answered while the others still wait

    async def all_at_once():
        transport = httpx2.ASGITransport(service_of(max_waiting=2))
        async with (
            httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client,
            anyio.create_task_group() as group,
        ):
            for _ in range(4):
                group.start_soon(ask, client)

    anyio.run(all_at_once)
    assert sorted(codes) == [200, 200, 200, 503]
    assert finder.most_at_once == 1


def test_a_page_of_another_name_is_refused(service_of):
    answer = TestClient(service_of()).get("/health", headers={"host": "evil.example"})
    assert answer.status_code == 400


def test_the_page_takes_nothing_from_other_hosts(service_of):
    client = TestClient(service_of())
    for path in ("/", "/page.js", "/docs"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "https://" not in answer.text.replace("https://json-schema.org", "")
    assert client.get("/docs-assets/swagger-ui-bundle.js").status_code == 200


def test_the_interface_is_described(service_of):
    described = json.loads(TestClient(service_of()).get("/openapi.json").text)
    assert set(described["paths"]) == {"/health", "/detect", "/detect/path"}
    assert (
        "application/geo+json"
        in described["paths"]["/detect"]["post"]["responses"]["200"]["content"]
    )
