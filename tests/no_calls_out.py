"""A hook for child processes: it refuses and records every connection that would leave the machine."""

from __future__ import annotations

from pathlib import Path

HOOK = """
import sys

LOOPBACK = ("127.", "::1", "localhost")


def refuse_calls_out(event, arguments):
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event == "socket.gethostbyname":
        host = arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else str(host or "127.0.0.1")
    if not host.startswith(LOOPBACK):
        with open({log!r}, "a") as stream:
            stream.write(event + " " + host + "\\n")
        raise OSError("no connection leaves this machine: " + host)


sys.addaudithook(refuse_calls_out)
"""


class Watchman:
    """Python processes that are started with `environment` may not call out; `calls` are those that tried."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._log = folder / "calls"
        (folder / "sitecustomize.py").write_text(HOOK.format(log=str(self._log)))
        self.environment = {"PYTHONPATH": str(folder)}

    @property
    def calls(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []
