"""``python -m emokd_utils``, and what it has of the process around it: streams and signals."""

import os
import signal
import sys
from contextlib import suppress
from typing import Any, TextIO

from .cli.commands import main


class Shown:
    """A stream for what is only shown: where nobody can read it any more, the work goes on."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream or open(os.devnull, "w")  # None: closed before Python began

    def write(self, text: str) -> int:
        """Write what can be written."""
        with suppress(OSError, ValueError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush where that is possible."""
        with suppress(OSError, ValueError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _prepare() -> None:
    """Let no stream stop the work, and the signals that ask a process to end do as Ctrl-C does."""
    sys.stdout, sys.stderr = Shown(sys.stdout), Shown(sys.stderr)
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) is signal.SIG_DFL:  # nohup's choice stays
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # `timeout` sends it twice: once is enough
    raise KeyboardInterrupt


_prepare()
sys.exit(main())
