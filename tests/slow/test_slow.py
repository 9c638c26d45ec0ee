"""slowhttptest in its three modes: a thousand connections that send or read as slowly as they are
let, while a visitor goes about its business. That the service stayed available is said twice, by
the tool's own probe and by the visitor, and the server must have got rid of the slow ones."""

import csv
import re
import subprocess
import threading
import time
import urllib.request

import pytest
from websockets.sync.client import connect

SLOW_CONNECTIONS = 1000
CONNECTIONS_PER_S = 250
ATTACK_S = 16
HANDSHAKE_TIMEOUT_S = 5
LIMIT_S = 20
# What a visitor may have to wait at worst, on a machine that other suites keep busy.
PATIENCE_S = 2.0

# The arguments of each mode and the path it goes to. Headers and bodies trickle in; the slow
# reader asks ten times in one go, the most that the tool does, for the longest answer there is,
# and takes 32 bytes a second of it.
TRICKLE = ["-i", "1", "-x", "16"]
MODES = {
    "headers": (["-H", *TRICKLE], "/health"),
    "body": (["-B", *TRICKLE, "-s", "65536"], "/api/revoke"),
    "reading": (["-X", "-w", "64", "-y", "256", "-n", "1", "-z", "32", "-k", "10"], "/metrics"),
}


class Visitor:
    """Echoes on one connection, opens another, and asks for the health, over and over."""

    def __init__(self, server):
        self.server = server
        self.rounds, self.worst_s, self.fault = 0, 0.0, None
        self.held, self.held_most = 0, 0
        self.ends = threading.Event()
        self.thread = threading.Thread(target=self._go, daemon=True)
        self.thread.start()

    def _go(self) -> None:
        try:
            with self._dial() as stays:
                while not self.ends.wait(0.1):
                    self._timed(lambda: self._echo(stays))
                    self._timed(self._visit)
                    self._timed(lambda: self.server.get("/health"))
                    self.held = int(self.server.metric("tidemill_reactor_connections"))
                    self.held_most = max(self.held_most, self.held)
                    self.rounds += 1
        except Exception as fault:
            self.fault = fault

    def _timed(self, step) -> None:
        began = time.monotonic()
        step()
        self.worst_s = max(self.worst_s, time.monotonic() - began)

    def _dial(self):
        return connect(self.server.url(), proxy=None, open_timeout=LIMIT_S)

    def _visit(self) -> None:
        with self._dial() as client:
            self._echo(client)

    def _echo(self, client) -> None:
        client.send("still there?")
        assert client.recv(LIMIT_S) == "still there?"

    def leave(self) -> None:
        self.ends.set()
        self.thread.join(2 * LIMIT_S)
        assert not self.thread.is_alive(), "the visitor waits for ever"


def attack(server, mode: str, folder) -> tuple[str, list[dict[str, str]]]:
    """What slowhttptest said, and its seconds: how many are connected, closed, and whether its
    probe was answered."""
    arguments, path = MODES[mode]
    command = [
        "slowhttptest", *arguments, "-c", str(SLOW_CONNECTIONS), "-r", str(CONNECTIONS_PER_S),
        "-l", str(ATTACK_S), "-p", "3", "-g", "-o", str(folder / mode),
        "-u", f"http://127.0.0.1:{server.port}{path}",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        timeout=ATTACK_S + LIMIT_S, check=False,
    )
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    assert done.returncode == 0, said
    with (folder / f"{mode}.csv").open() as report:
        return said, list(csv.DictReader(report))


@pytest.mark.parametrize("mode", MODES)
def test_the_service_stays_available_to_others(start, tmp_path, mode):
    server = start(HANDSHAKE_TIMEOUT=f"{HANDSHAKE_TIMEOUT_S}s", LOG_FORMAT="text")
    visitor = Visitor(server)
    said, seconds = attack(server, mode, tmp_path)
    visitor.leave()
    assert visitor.fault is None, f"{visitor.fault!r}\n{said}"
    assert visitor.worst_s < PATIENCE_S, f"after {visitor.rounds} rounds"
    assert visitor.rounds >= ATTACK_S / 4

    # An attack that did not take place shows nothing.
    assert max(int(second["Connected"]) for second in seconds) > SLOW_CONNECTIONS / 2, said
    assert visitor.held_most > SLOW_CONNECTIONS / 4
    assert re.search(r"service available:\s+YES", said), said
    assert all(int(second["Service Available"]) > 0 for second in seconds), seconds
    assert re.search(r"Exit status:\s+(No open connections left|Hit test time limit)", said), said

    # The server got rid of them while they still tried. Those who read have their answer in the
    # kernel's buffers, and may take their time over it.
    if mode != "reading":
        assert "No open connections left" in said
        assert server.metric("tidemill_timeouts_total", kind="handshake") > SLOW_CONNECTIONS / 2
    assert visitor.held < visitor.held_most / 2
    deadline = time.monotonic() + LIMIT_S
    while (left := server.metric("tidemill_reactor_connections")) > 1:
        assert time.monotonic() < deadline, f"{left} connections are left"
        time.sleep(0.1)
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/ready", timeout=LIMIT_S) as ready:
        assert ready.status == 200
