"""Behind haproxy: the PROXY protocol in both versions, its health checks, and its HTTP mode."""

import csv
import io
import time
import urllib.request

import pytest
from proxies import HOME, LIMIT_S, enter_once_free, refusal, visit
from websockets.exceptions import WebSocketException

EVIL = "http://evil.example"
VERSIONS = ["send-proxy", "send-proxy-v2"]
# Where haproxy connects from, and the addresses of two visitors.
FRONT, ANNE, BOB = "127.0.0.8", "127.0.0.2", "127.0.0.3"
BEHIND = {"TRUSTED_PROXIES": FRONT, "PROXY_PROTOCOL": "true", "LOG_FORMAT": "text"}


def status_or_gone(port: int, **how) -> int | None:
    """As `visit`; None when the connection ended without an answer."""
    try:
        return visit(port, **how)
    except (WebSocketException, ConnectionError, EOFError):
        return None


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("version", VERSIONS)
def test_the_address_of_a_visitor_comes_through(start, haproxy, version, secure):
    server = start(
        TLS_LISTEN="127.0.0.1:0", TLS_SELF_SIGNED="true", MAX_CONNECTIONS_PER_IP="1", **BEHIND
    )
    to = server.tls_port if secure else server.port
    port = haproxy(to, source=FRONT, way=version).port["way"]
    assert visit(port, source=ANNE, secure=secure, origin=EVIL) == 403
    server.says(rf"reason=origin remote={ANNE}\b")
    with enter_once_free(port, source=ANNE, secure=secure) as client:
        client.send(b"\x00" * 60_000)
        assert client.recv() == b"\x00" * 60_000
        assert visit(port, source=ANNE, secure=secure) == 429
        assert visit(port, source=BOB, secure=secure) == 101
    with enter_once_free(port, source=ANNE, secure=secure):
        pass


def test_a_page_that_came_over_tls_is_of_the_same_site_by_https_only(start, haproxy):
    server = start(TLS_LISTEN="127.0.0.1:0", TLS_SELF_SIGNED="true", **BEHIND)
    port = haproxy(server.tls_port, source=FRONT, way="send-proxy-v2").port["way"]
    assert visit(port, secure=True, name="chat.example") == 101
    for origin in ("http://chat.example", "https://evil.example"):
        assert visit(port, secure=True, name="chat.example", origin=origin) == 403


def test_a_proxy_that_says_nothing_is_not_served(start, haproxy):
    server = start(**BEHIND)
    port = haproxy(server.port, source=FRONT, silent="").port["silent"]
    assert status_or_gone(port) is None
    server.settles("tidemill_handshakes_refused_total", 1, reason="proxy_header")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("protocol", ["true", "false"])
def test_the_word_of_a_proxy_that_is_not_trusted_is_not_taken(start, haproxy, version, protocol):
    server = start(TRUSTED_PROXIES="192.0.2.1", PROXY_PROTOCOL=protocol)
    proxy = haproxy(server.port, source=FRONT, way=version, silent="")
    assert status_or_gone(proxy.port["way"], source=ANNE) in (400, None)
    assert visit(proxy.port["silent"], source=ANNE) == 101, "without its word it is a visitor"


@pytest.mark.parametrize("version", VERSIONS)
def test_health_checks_with_the_proxy_protocol_find_the_server_healthy(start, haproxy, version):
    server = start(TRUSTED_PROXIES=FRONT, PROXY_PROTOCOL="true")
    check = f"{version} check inter 100ms check-send-proxy"
    more = "option httpchk GET /ready\nhttp-check expect status 200"
    proxy = haproxy(server.port, source=FRONT, way=check, more=more)
    state = health(proxy, "way")
    assert state["check_status"] == "L7OK", state
    assert state["status"] == "UP"
    assert server.metric("tidemill_handshakes_refused_total") == 0


def health(proxy, way: str) -> dict[str, str]:
    """What haproxy thinks of the server, once it has looked."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        url = f"http://{HOME}:{proxy.statistics}/;csv"
        with urllib.request.urlopen(url, timeout=LIMIT_S) as answer:
            rows = csv.DictReader(io.StringIO(answer.read().decode().removeprefix("# ")))
        [state] = [r for r in rows if (r["pxname"], r["svname"]) == (way, "tidemill")]
        # A star marks a check under way, INI one that has not been made.
        if state["check_status"] not in ("", "INI") and "*" not in state["check_status"]:
            return state
        assert time.monotonic() < deadline, state
        time.sleep(0.05)


def test_in_http_mode_the_last_forwarded_line_is_the_one_that_counts(start, haproxy):
    server = start(TRUSTED_PROXIES=FRONT, MAX_CONNECTIONS_PER_IP="1", LOG_FORMAT="text")
    # haproxy adds a line of its own behind those that the visitor has sent.
    proxy = haproxy(server.port, mode="http", source=FRONT, more="option forwardfor", way="")
    port, claim = proxy.port["way"], {"X-Forwarded-For": "198.51.100.7"}
    assert refusal(port, source=ANNE, headers=claim, origin=EVIL).status_code == 403
    server.says(rf"reason=origin remote={ANNE}\b")
    with enter_once_free(port, source=ANNE, headers=claim):
        assert visit(port, source=ANNE) == 429
        assert visit(port, source=BOB, headers=claim) == 101
