"""What the tests of this folder are given: `start` begins a server, `nginx` and `haproxy` begin
one of these in front of it. All of them are ended when the test is."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clients/python"))

from proxies import Haproxy, Nginx  # noqa: E402
from serving import start  # noqa: E402

__all__ = ["start"]


def running(kind):
    begun = []

    def begin(*config, **more):
        begun.append(kind(*config, **more))
        return begun[-1]

    yield begin
    for proxy in begun:
        proxy.stop()


@pytest.fixture
def nginx(start):
    yield from running(Nginx)


@pytest.fixture
def haproxy(start):
    yield from running(Haproxy)
