"""Exports a run in a process of its own, which is given nothing but the order, its credential and a time limit.

A tracker that hangs, a client library that crashes and what either leaves on the disk stay in there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping

from gateway.errors import ExportFailed
from policies.contract.metrics_export import ExportOrder
from policies.offline import NO_TELEMETRY

PASSED_ON = ("WANDB_", "MLFLOW_", "REQUESTS_CA_BUNDLE", "SSL_CERT_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
"""Beginnings of the operator's variables that say how trackers are reached."""
SCRATCH = ("HOME", "TMPDIR", "TUNEGATE_CACHE_DIR", "WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR")
"""Folders that are gone afterwards, unless the operator's environment says otherwise."""
MESSAGE_CHARACTERS = 1000


def export_in_child(order: ExportOrder, secrets: Mapping[str, str], *, seconds: float) -> None:
    """Export, or raise within about `seconds`.

    Raises:
        ExportFailed: with none of the secrets in its message.
    """
    command = [sys.executable, "-m", "gateway.integrations.child", str(int(seconds) + 5)]
    with (
        tempfile.TemporaryDirectory(prefix="tunegate-export-", ignore_cleanup_errors=True) as scratch,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=scratch,
            env=_environment(scratch) | dict(secrets),
            start_new_session=True,
        ) as child,
    ):
        try:
            output, _ = child.communicate(order.canonical(), timeout=seconds)
        except subprocess.TimeoutExpired as error:
            message = f"{order.sink} did not take the run within {seconds:g} s."
            raise ExportFailed(message, code="export_timed_out") from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    if child.returncode != 0:
        words = output.decode(errors="replace").strip()[-MESSAGE_CHARACTERS:]
        for secret in secrets.values():
            words = words.replace(secret, "…")
        raise ExportFailed(words or f"The export to {order.sink} ended with exit code {child.returncode}.")


def _environment(scratch: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if name.upper().startswith(PASSED_ON)}
    path = os.pathsep.join(os.path.abspath(each) for each in sys.path if each)  # the working folder is another one
    places = dict.fromkeys(SCRATCH, scratch)
    return places | own | NO_TELEMETRY | {"PYTHONPATH": path, "PATH": os.defpath, "LC_ALL": "C.UTF-8"}
