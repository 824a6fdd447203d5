"""Who comes in, from where, with how much."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import httpx
import pytest

from serving import sample_file, serving
from stilnovo.chat.events import Code
from stilnovo.errors import InputError
from stilnovo.serve.settings import ServeSettings, is_loopback

TOKEN = "una-chiave-abbastanza-lunga"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_file(tmp_path_factory.mktemp("door"))


@pytest.fixture(scope="module")
def service(path: Path) -> Iterator[httpx.Client]:
    with serving(path, body_bytes=4096, upload_bytes=2**20) as client:
        yield client


@pytest.fixture(scope="module")
def locked(path: Path) -> Iterator[httpx.Client]:
    with serving(path, token=TOKEN) as client:
        yield client


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
def test_beyond_loopback_only_with_a_token(host: str) -> None:
    with pytest.raises(InputError, match="token"):
        ServeSettings(Path("x"), host=host)
    assert not is_loopback(ServeSettings(Path("x"), host=host, token=TOKEN).host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_none(host: str) -> None:
    assert is_loopback(ServeSettings(Path("x"), host=host).host)


@pytest.mark.parametrize("token", ["kurz", "mit leerzeichen darin x", "àààààààààààààààààà"])
def test_weak_tokens_are_refused(token: str) -> None:
    with pytest.raises(InputError, match="token"):
        ServeSettings(Path("x"), token=token)


def test_settings_do_not_print_the_token() -> None:
    assert TOKEN not in repr(ServeSettings(Path("x"), token=TOKEN))


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[", "localhost.evil"]
)
def test_a_foreign_host_name_is_refused(service: httpx.Client, host: str) -> None:
    response = service.get("/api/state", headers={"Host": host})
    assert response.status_code == 421 if host else response.status_code in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "localhost:99", "127.0.0.1:1", "[::1]:80"])
def test_loopbacks_own_names_are_taken(service: httpx.Client, host: str) -> None:
    assert service.get("/api/state", headers={"Host": host}).status_code == 200


def test_other_origins_change_nothing(service: httpx.Client) -> None:
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://127.0.0.1:1"},  # another port of this machine is another origin
    ):
        assert service.post("/api/conversations", json={}, headers=headers).status_code == 403
        response = service.post("/api/uploads", files={"file": ("a.txt", b"ciao")}, headers=headers)
        assert response.status_code == 403
    own = f"http://127.0.0.1:{service.base_url.port}"
    assert service.post("/api/conversations", json={}, headers={"Origin": own}).status_code == 201


def test_there_is_no_cors_unless_asked_for(service: httpx.Client, path: Path) -> None:
    asking = {"Origin": "https://amica.example", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in service.options("/v1/chat/completions", headers=asking).headers
    assert "access-control-allow-origin" not in service.get("/health", headers=asking).headers
    with serving(path, origins=("https://amica.example",)) as open_service:
        answer = open_service.options("/v1/chat/completions", headers=asking)
        assert answer.headers["access-control-allow-origin"] == "https://amica.example"
        other = open_service.options("/v1/chat/completions", headers={**asking, "Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers
        posted = open_service.post("/api/conversations", json={}, headers={"Origin": "https://amica.example"})
        assert posted.status_code == 201


def test_every_answer_carries_the_policy(service: httpx.Client) -> None:
    for route in ("/", "/static/js/main.js", "/api/state", "/api/conversations/none", "/nowhere"):
        headers = service.get(route).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == "'self'"
        assert "unsafe" not in headers["content-security-policy"]
        assert policy["frame-ancestors"] == "'none'"
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "route", ["/api/state", "/api/conversations", "/v1/models", "/metrics", "/api/works", "/nowhere", "/api/session/x"]
)
def test_the_token_is_asked_for(locked: httpx.Client, route: str) -> None:
    assert locked.get(route).status_code == 401
    for wrong in (f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer", "Bearer à"):
        assert locked.get(route, headers={"Authorization": wrong.encode()}).status_code == 401
    assert locked.get(route, headers={"Authorization": f"Bearer {TOKEN}"}).status_code in (200, 404)


def test_the_page_and_health_are_open(locked: httpx.Client) -> None:
    for route in ("/", "/static/js/main.js", "/health"):
        assert locked.get(route).status_code == 200


def test_the_page_gets_a_cookie_that_is_not_the_token(locked: httpx.Client) -> None:
    with httpx.Client(base_url=locked.base_url) as page:
        assert page.post("/api/session", json={"token": "sbagliata-ma-lunga-abbastanza"}).status_code == 401
        assert page.get("/api/state").status_code == 401
        entered = page.post("/api/session", json={"token": TOKEN})
        assert entered.status_code == 204
        cookie = entered.headers["set-cookie"]
        assert TOKEN not in cookie
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        assert page.get("/api/state").status_code == 200
        assert page.delete("/api/session").status_code == 204
        assert page.get("/api/state").status_code == 401


def test_large_bodies_are_refused_whatever_they_announce(service: httpx.Client) -> None:
    assert service.post("/api/conversations", content=b"x" * 5000).status_code == 413

    def pieces() -> Iterator[bytes]:  # sent in chunks, no length announced
        for _ in range(50):
            yield b"x" * 1000

    assert service.post("/v1/chat/completions", content=pieces()).status_code == 413
    large = service.post("/api/uploads", files={"file": ("a.txt", b"x" * (3 * 2**20))})
    assert large.status_code == 413
    assert large.json()["error"]["code"] == "too_large"
    assert service.get("/health").status_code == 200


def test_nonsense_on_the_wire_ends_nothing(service: httpx.Client) -> None:
    for nonsense in (
        b"\x00\xff\xfe\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -4\r\n\r\n",
        b"POST /v1/x HTTP/9\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", service.base_url.port or 0), timeout=5) as wire:
            wire.sendall(nonsense)
            wire.settimeout(5)
            wire.recv(4096)
    assert service.get("/health").json()["status"] == "ok"


@pytest.mark.parametrize(
    "route", ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2f..%2ferrors.py", "/static//etc/passwd"]
)
def test_no_static_path_leaves_its_folder(service: httpx.Client, route: str) -> None:
    with socket.create_connection(("127.0.0.1", service.base_url.port or 0), timeout=5) as wire:
        wire.sendall(f"GET {route} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while piece := wire.recv(4096):
            answer += piece
    assert b" 404 " in answer.split(b"\r\n")[0]
    assert b"import" not in answer


def test_the_page_is_all_its_own() -> None:
    """No script, style, font or image from elsewhere; nothing inline; no text ever parsed as markup."""
    import re

    static = Path(__file__).parents[1] / "src" / "stilnovo" / "serve" / "static"
    page = (static / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"\son\w+=|style=|<style|javascript:", page)
    assert all(re.search(r"<script[^>]* src=\"/static/", tag) for tag in re.findall(r"<script[^>]*>", page))
    for file in [*static.rglob("*.js"), *static.rglob("*.css"), static / "index.html"]:
        text = file.read_text(encoding="utf-8")
        found = re.findall(r"https?://[^\s\"')]+", text)
        assert set(found) <= {"http://www.w3.org/2000/svg"}, file
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|@import|url\(", text
        ), file
        assert len(text.splitlines()) <= 400, file


def test_both_languages_have_the_same_words() -> None:
    import re

    static = Path(__file__).parents[1] / "src" / "stilnovo" / "serve" / "static"
    words = (static / "js" / "words.js").read_text(encoding="utf-8")
    italian, english = words.split("\n  en: {")
    pattern = r"(?:^|[{,\s])(\w+): \""
    keys = [re.findall(pattern, part) for part in (italian, english)]
    assert keys[0] == keys[1]
    assert len(keys[0]) == len(set(keys[0])) > 100
    used = "".join(f.read_text(encoding="utf-8") for f in static.rglob("*.js")) + (static / "index.html").read_text(
        encoding="utf-8"
    )
    asked = set(re.findall(r"\bt\(\"(\w+)\"", used)) | set(re.findall(r"data-t(?:-\w+)?=\"(\w+)\"", used))
    asked |= {f"notice_{code}" for code in get_args(Code) if code != "writer_failed"}  # an error has words of its own
    assert asked <= set(keys[0]), sorted(asked - set(keys[0]))
    for it, en in zip(
        *(re.findall(r"(\w+): \"((?:[^\"\\]|\\.)*)\"", part) for part in (italian, english)), strict=True
    ):
        assert set(re.findall(r"\{\w+\}", it[1])) == set(re.findall(r"\{\w+\}", en[1])), it[0]


def test_a_path_hidden_in_the_host_opens_nothing(tmp_path: Path) -> None:
    """What is open without a token is decided by the path alone."""
    with serving(sample_file(tmp_path), token="una-chiave-molto-lunga", hosts=("*",)) as service:
        for host in ("x/static/#", "x/health?", "x/static/"):
            assert service.get("/api/works", headers={"Host": host}).status_code in (400, 401)
        assert service.get("/api/works%3F/static/").status_code == 401
        assert service.get("/health").status_code == 200
