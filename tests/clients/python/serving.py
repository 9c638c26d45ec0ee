"""Starts the release binary for tests, on a port that the kernel chooses.

`SUITE_SERVER` names the binary. `start` begins a server with options of its own, which must leave
with status 0 on SIGTERM. The tests of proxies and of slow peers use this file too.
"""

import os
import re
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

BINARY = os.environ.get("SUITE_SERVER", "target/release/tidemill")
START_LIMIT_S = 20
STOP_LIMIT_S = 30
SAY_LIMIT_S = 10


class Server:
    def __init__(self, log: Path, **options: str):
        self.log = log
        variables = {name: value for name, value in os.environ.items() if "TIDEMILL_" not in name}
        variables["TIDEMILL_LISTEN"] = "127.0.0.1:0"
        variables.update({f"TIDEMILL_{name}": value for name, value in options.items()})
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [BINARY], env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self.port = self._port_of_banner()

    def _port_of_banner(self) -> int:
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            found = re.search(r"ws://127\.0\.0\.1:(\d+)", self.log.read_text())
            if found:
                return int(found.group(1))
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        self.process.kill()
        pytest.fail(f"the server did not start:\n{self.log.read_text()}")

    @property
    def tls_port(self) -> int:
        return int(self.says(r"wss://127\.0\.0\.1:(\d+)")[1])

    def says(self, pattern: str) -> re.Match:
        """Waits until the log has what the pattern describes."""
        deadline = time.monotonic() + SAY_LIMIT_S
        while not (found := re.search(pattern, self.log.read_text())):
            assert time.monotonic() < deadline, f"no {pattern} in:\n{self.log.read_text()}"
            time.sleep(0.02)
        return found

    def reload(self) -> None:
        """Has the files read again, and waits until that is done."""
        before = self.metric("tidemill_reloads_total", result="ok")
        self.process.send_signal(signal.SIGHUP)
        self.settles("tidemill_reloads_total", before + 1, result="ok")

    def url(self, path: str = "/echo") -> str:
        return f"ws://127.0.0.1:{self.port}{path}"

    def get(self, path: str) -> tuple[int, str, str]:
        """Status, content type and body of a plain GET that succeeds."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples called `name` that carry these labels."""
        total = 0.0
        for line in self.get("/metrics")[2].splitlines():
            sample = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if not sample or sample.group(1) != name:
                continue
            carried = dict(re.findall(r'(\w+)="([^"]*)"', sample.group(2) or ""))
            if labels.items() <= carried.items():
                total += float(sample.group(3))
        return total

    def settles(self, name: str, value: float, **labels: str) -> None:
        """Waits for a metric: snapshots are at most a tenth of a second old, closing takes time."""
        deadline = time.monotonic() + 10
        while (seen := self.metric(name, **labels)) != value:
            assert time.monotonic() < deadline, f"{name} stayed at {seen}, expected {value}"
            time.sleep(0.05)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        return self.process.wait(STOP_LIMIT_S)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.terminate()
        try:
            status = self.wait()
        except subprocess.TimeoutExpired:
            self.process.kill()
            pytest.fail(f"the server ignored SIGTERM:\n{self.log.read_text()}")
        assert status == 0, f"status {status}:\n{self.log.read_text()}"


@pytest.fixture
def start(tmp_path):
    servers = []

    def start(**options: str) -> Server:
        servers.append(Server(tmp_path / f"server-{len(servers)}.log", **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
