"""Keys that change under a running server: in a file, on a signal, and at an endpoint."""

import http.server
import signal
import threading
import time

import pytest
from tokens import LIMIT_S, admitted, enter, invalid_as, jwk, jwk_set, private_key, sign
from websockets.exceptions import InvalidStatus


def rotation(kind: str):
    """The variable, and two generations of (algorithm, key, its id, the file's text)."""
    algorithm = "HS256" if kind == "secret" else kind
    name = "TOKEN_SECRET_FILE" if "HS" in algorithm else "TOKEN_PUBLIC_KEY_FILE"
    generations = []
    for kid in ("2025", "2026"):
        key = private_key(algorithm)
        if kind == "secret":
            generations.append((algorithm, key, None, f"{key}\n"))
        else:
            generations.append((algorithm, key, kid, jwk_set(jwk(key, algorithm, kid))))
    return name, generations


@pytest.mark.parametrize("kind", ["secret", "HS512", "RS256", "ES256", "EdDSA"])
def test_keys_rotate_on_a_signal_and_nobody_is_disturbed(start, tmp_path, kind):
    name, [old, new] = rotation(kind)
    file = tmp_path / "keys"
    file.write_text(old[3])
    server = start(**{name: str(file)})

    def token(generation):
        algorithm, key, kid, _ = generation
        return sign(key, algorithm, kid)

    with enter(server, token(old)) as stays:
        assert not admitted(server, token(new))
        if kind == "secret":
            file.write_text(old[3] + new[3])
        else:
            both = (jwk(key, algorithm, kid) for algorithm, key, kid, _ in (old, new))
            file.write_text(jwk_set(*both))
        server.reload()
        assert admitted(server, token(old)) and admitted(server, token(new))
        file.write_text(new[3])
        server.reload()
        reason = "token_signature" if kind == "secret" else "token_key"
        invalid_as(server, reason, token(old))
        assert admitted(server, token(new))
        # A file that says nothing leaves what there was.
        file.write_text("{")
        server.process.send_signal(signal.SIGHUP)
        server.settles("tidemill_reloads_total", 1, result="failed")
        assert admitted(server, token(new))
        stays.send("undisturbed")
        assert stays.recv(LIMIT_S) == "undisturbed"


class Endpoint:
    """Serves a JWK Set, which may change, or a status that is no success."""

    def __init__(self):
        endpoint = self
        self.answer, self.asked = (500, ""), 0

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                endpoint.asked += 1
                status, body = endpoint.answer
                self.send_response(status)
                self.send_header("Content-Type", "application/jwk-set+json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys?client=a-secret-of-ours"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def endpoints():
    endpoints = Endpoint(), Endpoint()
    yield endpoints
    for endpoint in endpoints:
        endpoint.stop()


def within(seconds: float, holds) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


def status(server, token: str) -> int:
    try:
        with enter(server, token):
            return 101
    except InvalidStatus as refused:
        if refused.response.status_code == 503:
            assert int(refused.response.headers["Retry-After"]) >= 1
        return refused.response.status_code


def test_keys_are_fetched_when_they_can_be_and_when_a_new_one_is_seen(start, endpoints):
    late, early = endpoints
    first, second = private_key("ES256"), private_key("RS256")
    one = jwk_set(jwk(first, "ES256", "first"))
    both = jwk_set(jwk(first, "ES256", "first"), jwk(second, "RS256", "second"))
    old, new = sign(first, "ES256", "first"), sign(second, "RS256", "second")
    early.answer = (200, one)
    # What follows comes long before the interval has passed.
    waits = start(TOKEN_JWKS_URL=late.url, TOKEN_JWKS_INTERVAL="24h")
    knows = start(TOKEN_JWKS_URL=early.url, TOKEN_JWKS_INTERVAL="24h")
    within(10, lambda: late.asked > 0)
    assert status(waits, old) == 503, "who cannot be judged yet may come back"
    assert status(knows, old) == 101
    assert status(knows, new) == 401

    late.answer, early.answer = (200, one), (200, both)
    within(30, lambda: status(knows, new) == 101)
    assert status(knows, old) == 101
    within(30, lambda: status(waits, old) == 101)

    # An endpoint that fails takes nobody's keys away, and made-up names do not have it flooded.
    early.answer = (500, "")
    asked, began = early.asked, time.monotonic()
    for number in range(200):
        assert status(knows, sign(second, "RS256", f"unknown-{number}")) == 401
    assert early.asked <= asked + 2 + (time.monotonic() - began) / 2
    assert status(knows, new) == 101
    for server in (waits, knows):
        assert "a-secret-of-ours" not in server.log.read_text()
