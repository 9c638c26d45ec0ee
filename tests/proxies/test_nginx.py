"""Behind nginx: which of its settings let a page of the same site in, and who counts as whom."""

import http.client
from contextlib import ExitStack

import pytest
from proxies import (
    HOME,
    LIMIT_S,
    NAME,
    connections_to,
    enter,
    enter_once_free,
    refusal,
    visit,
)

EVIL = "http://evil.example"
SAME_NAME = "proxy_set_header Host $http_host;"
FORWARDED_HOST = "proxy_set_header X-Forwarded-Host $http_host;"
FORWARDED_FOR = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"
FORWARDED = 'proxy_set_header Forwarded "for=$remote_addr";'
# The addresses of visitors, none of which is nginx's own.
ANNE, BOB, CAROL = "127.0.0.2", "127.0.0.3", "127.0.0.4"


def status_of(port: int, path: str, source: str = "127.0.0.1") -> int:
    client = http.client.HTTPConnection(
        HOME, port, timeout=LIMIT_S, source_address=(source, 0))
    try:
        client.request("GET", path)
        return client.getresponse().status
    finally:
        client.close()


def test_the_host_as_the_browser_sent_it_makes_a_page_of_the_same_site(start, nginx):
    proxy = nginx(start(), way=SAME_NAME)
    port = proxy.port["way"]
    assert visit(port) == 101
    assert visit(port, name=NAME) == 101
    assert visit(port, name=NAME, origin=f"https://{NAME}") == 101
    for origin in (EVIL, f"http://{NAME}:{port + 1}", f"http://{NAME}", f"http://x.{NAME}:{port}"):
        assert visit(port, origin=origin) == 403, origin


def test_the_host_without_its_port_is_enough_on_the_default_port_only(start, nginx):
    proxy = nginx(start(), way="proxy_set_header Host $host;")
    port = proxy.port["way"]
    assert visit(port, name=NAME) == 101
    assert visit(port) == 403
    assert visit(port, name=NAME, origin=EVIL) == 403


def test_without_the_host_the_log_says_what_to_set_and_setting_it_helps(start, nginx):
    server = start(LOG_FORMAT="text")
    port = nginx(server, way="").port["way"]
    assert visit(port) == 403
    line = server.says(r"refused status=403 reason=origin .*remedy=\"set TIDEMILL_(\w+)=(\S+)\"")
    origin = f"http://{NAME}:{port}"
    assert f'origin="{origin}"' in line[0]
    assert 'path="/echo"' in line[0] and "remote=127.0.0.1 " in line[0]
    server.settles("tidemill_handshakes_refused_total", 1, status="403", reason="origin")

    helped = start(**{line[1]: line[2]})
    port = nginx(helped, way="").port["way"]
    assert visit(port, origin=origin) == 101
    assert visit(port, origin=EVIL) == 403


def test_the_forwarded_host_counts_from_a_trusted_proxy(start, nginx):
    proxy = nginx(start(TRUSTED_PROXIES="127.0.0.1"), way=FORWARDED_HOST)
    assert visit(proxy.port["way"]) == 101
    assert visit(proxy.port["way"], origin=EVIL) == 403


@pytest.mark.parametrize("trusted", ["", "192.0.2.0/24,2001:db8::/32"])
def test_the_forwarded_host_counts_from_nobody_else(start, nginx, trusted):
    proxy = nginx(start(TRUSTED_PROXIES=trusted), way=FORWARDED_HOST)
    assert visit(proxy.port["way"]) == 403


def test_a_page_that_came_over_tls_must_have_come_over_tls(start, nginx):
    outside_tls = SAME_NAME + "proxy_set_header X-Forwarded-Proto https;"
    proxy = nginx(start(TRUSTED_PROXIES="127.0.0.1"), way=outside_tls)
    assert visit(proxy.port["way"], name=NAME, origin=f"https://{NAME}") == 101
    assert visit(proxy.port["way"], name=NAME, origin=f"http://{NAME}") == 403


def test_each_visitor_of_a_trusted_proxy_has_a_cap_of_its_own(start, nginx):
    server = start(TRUSTED_PROXIES="127.0.0.1", MAX_CONNECTIONS_PER_IP="2")
    port = nginx(server, way=SAME_NAME + FORWARDED_FOR).port["way"]
    with ExitStack() as inside:
        for visitor in (ANNE, ANNE, BOB):
            inside.enter_context(enter(port, source=visitor))
        refused = refusal(port, source=ANNE)
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        # What a visitor claims stands left of what nginx has seen, and does not count.
        claim = {"X-Forwarded-For": "198.51.100.7"}
        assert visit(port, source=ANNE, headers=claim) == 429
        assert visit(port, source=BOB, headers=claim) == 101
        server.settles("tidemill_handshakes_refused_total", 2, reason="address_cap")
    with enter_once_free(port, source=ANNE):
        pass


def test_who_comes_over_a_kept_connection_counts_as_who_comes_now(start, nginx):
    server = start(TRUSTED_PROXIES="127.0.0.1", MAX_CONNECTIONS_PER_IP="1")
    port = nginx(server, keeps=True, way=SAME_NAME + FORWARDED_FOR).port["way"]
    with enter(port, source=ANNE):
        for _ in range(3):
            # Carol asks for a page, and the connection that brought it brings the next visitor.
            assert status_of(port, "/health", source=CAROL) == 200
            assert connections_to(server.port) >= 2, "Anne's, and the one that is kept"
            assert visit(port, source=ANNE) == 429
            assert status_of(port, "/metrics", source=CAROL) == 403
            assert connections_to(server.port) >= 2
            with enter_once_free(port, source=BOB):
                assert visit(port, source=BOB) == 429
    with enter_once_free(port, source=ANNE):
        assert visit(port, source=ANNE) == 429


def test_a_header_from_a_peer_that_is_not_trusted_is_not_believed(start):
    server = start(TRUSTED_PROXIES="127.0.0.1", MAX_CONNECTIONS_PER_IP="2")
    with ExitStack() as inside:
        for number in range(2):
            claim = {"X-Forwarded-For": f"198.51.100.{number}"}
            how = {"at": "127.0.0.1", "source": ANNE, "headers": claim}
            inside.enter_context(enter(server.port, **how))
        claim = {"X-Forwarded-For": "198.51.100.9", "Forwarded": "for=198.51.100.9"}
        how = {"at": "127.0.0.1", "source": ANNE, "headers": claim}
        assert visit(server.port, **how) == 429
        assert visit(server.port, **how | {"source": BOB}) == 101


def test_visitors_that_come_too_fast_are_told_apart(start, nginx):
    server = start(TRUSTED_PROXIES="127.0.0.1", CONNECT_RATE_PER_IP="1")
    port = nginx(server, way=SAME_NAME + FORWARDED_FOR).port["way"]
    assert 429 in [visit(port, source=ANNE) for _ in range(10)]
    assert visit(port, source=BOB) == 101
    assert server.metric("tidemill_handshakes_refused_total", reason="connect_rate") >= 1


def test_forwarded_is_understood_and_must_not_contradict(start, nginx):
    server = start(TRUSTED_PROXIES="127.0.0.1", MAX_CONNECTIONS_PER_IP="1")
    port = nginx(server, way=SAME_NAME + FORWARDED).port["way"]
    with enter(port, source=ANNE):
        assert visit(port, source=ANNE) == 429
        assert visit(port, source=BOB) == 101
        # nginx passes on what it does not set itself: whose header is it?
        claim = {"X-Forwarded-For": "198.51.100.7"}
        assert visit(port, source=ANNE, headers=claim) == 400
    server.settles("tidemill_handshakes_refused_total", 1, status="400", reason="forwarded")


@pytest.mark.parametrize("trusted", ["", "127.0.0.1"])
def test_a_visitor_of_a_proxy_on_this_machine_is_no_local_visitor(start, nginx, trusted):
    server = start(TRUSTED_PROXIES=trusted)
    proxy = nginx(server, for_=FORWARDED_FOR, forwarded=FORWARDED)
    assert server.get("/metrics")[0] == 200
    for way in proxy.port:
        assert status_of(proxy.port[way], "/metrics") == 403, way
        assert status_of(proxy.port[way], "/health") == 200, way


def test_the_proxy_protocol_of_a_stream_carries_the_address(start, nginx):
    server = start(
        TRUSTED_PROXIES="127.0.0.8", PROXY_PROTOCOL="true", MAX_CONNECTIONS_PER_IP="1",
        LOG_FORMAT="text",
    )
    port = nginx(server, stream=server.port, source="127.0.0.8").port["stream"]
    assert visit(port, source=ANNE, origin=EVIL) == 403
    server.says(rf"reason=origin remote={ANNE}\b")
    with enter_once_free(port, source=ANNE):
        assert visit(port, source=ANNE) == 429
        assert visit(port, source=BOB) == 101
