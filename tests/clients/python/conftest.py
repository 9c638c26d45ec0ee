"""What the tests of this folder are given: `server`, one with the defaults for all tests that do
not change it, and `start`, which begins one with options of its own."""

import json

import pytest
from serving import Server, start

__all__ = ["start"]


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server") / "log")
    yield server
    server.stop()


@pytest.fixture
def welcome():
    return {"event": "connected", "message": "Welcome!"}


@pytest.fixture
def is_welcome(welcome):
    return lambda message: isinstance(message, str) and json.loads(message) == welcome
