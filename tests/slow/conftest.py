"""What the tests of this folder are given: `start` begins a server, ended with the test."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clients/python"))

from serving import start  # noqa: E402

__all__ = ["start"]
