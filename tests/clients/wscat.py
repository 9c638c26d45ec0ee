"""Types into wscat at a terminal, as the README shows, and compares what appears.

    wscat.py [--pair] WSCAT ARGUMENT...

With --pair it is two terminals, who hear each other; what the first shows is printed.
A pseudo-terminal rather than a pipe: only there does wscat show its prompt.
"""

import os
import pty
import re
import select
import signal
import sys
import time

LIMIT_S = 30
WELCOME = '< {"event":"connected","message":"Welcome!"}'


class Terminal:
    """A program at a terminal of its own, and all it has shown so far."""

    def __init__(self, *command: str):
        self.shown = ""
        self.read_to = 0
        self.process, self.descriptor = pty.fork()
        if self.process == 0:
            os.execvp(command[0], command)

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    def expect(self, text: str) -> None:
        """Waits until `text` appears behind what was expected before."""
        deadline = time.monotonic() + LIMIT_S
        while (found := self.shown.find(text, self.read_to)) < 0:
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                sys.exit(f"error: expected {text!r}; the terminal shows:\n{self.shown}")
        self.read_to = found + len(text)

    def _read(self, limit_s: float) -> bool:
        readable, _, _ = select.select([self.descriptor], [], [], limit_s)
        if not readable:
            return False
        try:
            chunk = os.read(self.descriptor, 4096)
        except OSError:  # Linux reports the end of a terminal as EIO.
            return False
        # Colours and cursor movements are not part of the transcript.
        self.shown += re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", chunk.decode(errors="replace"))
        return bool(chunk)

    def interrupt(self) -> None:
        os.kill(self.process, signal.SIGINT)
        os.waitpid(self.process, 0)


def connect(*command: str) -> Terminal:
    terminal = Terminal(*command)
    terminal.expect("Connected (press CTRL+C to quit)")
    return terminal


def alone(*command: str) -> None:
    terminal = connect(*command)
    terminal.expect(WELCOME)
    terminal.type("hello there\r")
    terminal.expect("> hello there")
    terminal.expect("< hello there")
    terminal.interrupt()
    print("Connected", WELCOME, "> hello there", "< hello there", sep="\n")


def pair(*command: str) -> None:
    here, there = connect(*command), connect(*command)
    here.type("hello from here\r")
    there.expect("< hello from here")
    there.type("hello from there\r")
    here.expect("> hello from here")
    here.expect("< hello from there")
    for terminal in (here, there):
        terminal.interrupt()
    print("Connected", "> hello from here", "< hello from there", sep="\n")


def main() -> None:
    if sys.argv[1] == "--pair":
        pair(*sys.argv[2:])
    else:
        alone(*sys.argv[1:])


if __name__ == "__main__":
    main()
