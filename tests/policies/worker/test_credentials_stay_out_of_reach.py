"""A child tries to get at its worker's credentials, as the same plain user, with everything that the system lets it."""

from __future__ import annotations

import ctypes
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import structlog

from policies.contract.worker_api import Assignment, Claim, Outcome
from policies.errors import ConfigurationError
from policies.own_memory import forget_variables
from policies.worker.settings import WorkerSettings, worker_settings
from policies.worker.supervisor import Attempt
from tests.policies.worker.conftest import CHILD_PROLOGUE, REPOSITORY, PlayedGateway

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc and prctl are Linux's")

PR_CAPBSET_DROP = 24
TOKEN, ATTEMPT = "worker-token-" + "w" * 40, "attempt-of-this-job"
BROKER = "redis://trainer:broker-password@127.0.0.1:1/0"
SECRETS = (TOKEN, "broker-password", ATTEMPT)

THIEF = (
    CHILD_PROLOGUE
    + """
def attempt(what, read):
    try:
        say(f"{what}: " + read().decode(errors="replace"))
    except OSError as error:
        say(f"{what}: {error.strerror}")

def memory():
    with open(f"/proc/{os.getppid()}/maps") as maps, open(f"/proc/{os.getppid()}/mem", "rb", 0) as mem:
        found = b""
        for line in maps:
            first, last = (int(part, 16) for part in line.split()[0].split("-"))
            if line.split()[1].startswith("rw"):
                mem.seek(first)
                content = mem.read(min(last - first, 1 << 26))
                at = content.find(b"worker-token-")
                found += content[at:at + 53] if at >= 0 else b""
        return found

attempt("environ", lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes())
attempt("memory", memory)
say("own: " + json.dumps(dict(os.environ)))
say("assignment: " + (folder / "assignment.json").read_text())
answer("yielded")
"""
)
OPEN = """
import json, sys
for path in json.loads(sys.argv[1]):
    try:
        open(path, "rb").close()
    except PermissionError:
        continue
    print(path)
"""
WORKER = """
import sys
from pathlib import Path

sys.path[:0] = [{repository!r}]
from policies.own_memory import refuse_readers
from policies.worker.settings import keep_settings, worker_settings
from policies.worker.supervisor import Attempt
from policies.contract.worker_api import Claim
from tests.policies.worker.conftest import PlayedGateway

if {protected}:
    refuse_readers()
    keep_settings()
gateway, settings = PlayedGateway(), worker_settings()
claim = Claim.model_validate_json(Path("claim.json").read_bytes())
with gateway.client() as client:
    Attempt(claim, settings, client).run("thief")
print("\\n".join(gateway.messages), gateway.completions[0].outcome.value)
"""


def as_plain_user(arguments: list[str], folder: Path, **variables: str) -> subprocess.Popen[str]:
    """Starts a process that has no rights beyond its user's, even where that is root: no capability is left to it."""
    return subprocess.Popen(
        arguments,
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_drop_capabilities if os.geteuid() == 0 else None,
    )


def _drop_capabilities() -> None:
    """What root has after an `exec` is what is in its bounding set."""
    libc = ctypes.CDLL(None)
    for capability in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        assert libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0


def told(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


def environment(place: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(place),
        "PYTHONPATH": f"{place}{os.pathsep}{REPOSITORY}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TUNEGATE_WORKER_TOKEN": TOKEN,
        "TUNEGATE_BROKER_URL": BROKER,
        "TUNEGATE_STORE_URL": f"file://{place}/store",
        "TUNEGATE_WORK_DIR": str(place / "work"),
        "TUNEGATE_CACHE_DIR": str(place / "cache"),
    }


def loot(place: Path, claim: Claim, *, protected: bool) -> str:
    """All that the child of a worker could tell."""
    (place / "thief.py").write_text(THIEF)
    (place / "claim.json").write_text(claim.model_copy(update={"attempt_token": ATTEMPT}).model_dump_json())
    source = WORKER.format(repository=str(REPOSITORY), protected=protected)
    return told(as_plain_user([sys.executable, "-c", source], place, **environment(place)))


def test_the_child_of_a_worker_gets_at_no_credential(place: Path, claim: Claim) -> None:
    found = loot(place, claim, protected=True)
    assert "environ: Permission denied" in found
    assert "memory: Permission denied" in found
    assert "own: {" in found
    assert "assignment: {" in found
    assert [secret for secret in SECRETS if secret in found] == []


def test_without_protection_the_same_child_gets_them(place: Path, claim: Claim) -> None:
    """Otherwise the test above would prove nothing. What a child is handed has none even so."""
    found = loot(place, claim, protected=False)
    assert TOKEN in found.partition("memory: ")[0]
    assert TOKEN in found.partition("memory: ")[2].partition("own: ")[0]
    assert [secret for secret in SECRETS if secret in found.partition("own: ")[2]] == []


def test_no_process_of_a_celery_worker_can_be_read(place: Path) -> None:
    arguments = ["-m", "celery", "-A", "trainer.tasks", "worker", "-Q", "train", "--concurrency", "1", "-l", "CRITICAL"]
    with as_plain_user([sys.executable, *arguments], place, **environment(place)) as worker:
        try:
            deadline = time.monotonic() + 60
            while not (pool := psutil.Process(worker.pid).children()):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            pids = [worker.pid, *(process.pid for process in pool)]
            paths = [f"/proc/{pid}/{name}" for pid in pids for name in ("environ", "mem", "maps")]
            assert told(as_plain_user([sys.executable, "-c", OPEN, json.dumps(paths)], place)) == ""
            assert told(as_plain_user([sys.executable, "-c", OPEN, '["/proc/self/environ"]'], place)) != ""
            if os.geteuid() == 0:  # with all rights one may look, and finds the values gone
                for pid in pids:
                    environ = Path(f"/proc/{pid}/environ").read_bytes()
                    assert b"TUNEGATE_STORE_URL=file" in environ
                    assert TOKEN.encode() not in environ
                    assert b"broker-password" not in environ
        finally:
            worker.kill()


def test_a_variable_is_gone_from_the_environment_and_from_what_the_system_shows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = """
import os
from policies.own_memory import forget_variables
forget_variables("SECRET", "NOT_SET")
print("SECRET" in os.environ, b"hush-hush" in open("/proc/self/environ", "rb").read(), os.environ["KEPT"])
"""
    variables = {"SECRET": "hush-hush", "KEPT": "kept", "PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run([sys.executable, "-c", source], env=variables, capture_output=True, text=True, check=True)
    assert ended.stdout == "False False kept\n"
    monkeypatch.setenv("SET_LATER", "x")
    forget_variables("SET_LATER")
    assert "SET_LATER" not in os.environ


def test_only_variables_that_are_not_the_workers_own_reach_a_child(
    attempt: Attempt, gateway: PlayedGateway, child: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TUNEGATE_WORKER_TOKEN", "TUNEGATE_BROKER_URL", "TUNEGATE_TRAINER_TOKEN", "CELERY_BROKER_URL"):
        monkeypatch.setenv(name, "x" * 40)
    monkeypatch.setenv("TUNEGATE_DTYPE", "float32")
    monkeypatch.setenv("OTHER_REGION", "of-the-store")
    attempt.run(child("say(' '.join(n for n in os.environ if n[:3] in ('TUN', 'CEL', 'OTH'))); answer('yielded')"))
    assert sorted(gateway.messages[0].split()) == ["OTHER_REGION", "TUNEGATE_DTYPE"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change user")
def test_a_worker_that_is_root_can_run_its_child_as_another_user(
    claim: Claim, settings: WorkerSettings, gateway: PlayedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the system's own Python: the one that runs the tests may lie where only root can enter."""
    source = "say(f'{os.getuid()} {os.getgid()} {os.getgroups()} {os.environ[\"HOME\"]}'); answer('yielded')"
    python, nobody = shutil.which("python3", path="/usr/bin"), pwd.getpwnam("nobody")
    if python is None:
        pytest.skip("there is no Python in /usr/bin")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        Path(folder, "scripted.py").write_text(CHILD_PROLOGUE + source)
        monkeypatch.setenv("PYTHONPATH", folder)
        monkeypatch.setattr(sys, "executable", python)
        changed = settings.model_copy(update={"child_user": "nobody", "work_dir": Path(folder, "work")})
        with gateway.client() as client:
            Attempt(claim, changed, client).run("scripted")
        assert list(Path(folder, "work").iterdir()) == []
    assert gateway.messages == [f"{nobody.pw_uid} {nobody.pw_gid} [] {nobody.pw_dir}"]
    assert gateway.completions[0].outcome is Outcome.YIELDED


def test_a_user_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_WORKER_TOKEN", "w" * 40)
    monkeypatch.setenv("TUNEGATE_CHILD_USER", "no-such-user")
    with pytest.raises(ConfigurationError, match=r"TUNEGATE_CHILD_USER: .*(no user 'no-such-user'|is root)"):
        worker_settings()


LEFT = {
    "a link to the worker's environment": "(folder / 'completion.json').symlink_to('/proc/self/environ')",
    "a pipe that nobody fills": "os.mkfifo(folder / 'completion.json')",
    "a folder": "(folder / 'completion.json').mkdir()",
    "an endless file": "os.truncate(os.open(folder / 'completion.json', os.O_CREAT | os.O_WRONLY), 1 << 40)",
    "another file's second name": "(folder / 'f').write_text('{}'); os.link(folder / 'f', folder / 'completion.json')",
}


@pytest.mark.parametrize("left", LEFT)
def test_what_a_child_leaves_as_its_answer_makes_the_worker_neither_read_elsewhere_nor_wait(
    attempt: Attempt, gateway: PlayedGateway, child: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    monkeypatch.setenv("HUSH", "hush-hush")
    attempt.run(child(LEFT[left]))
    (completion,) = gateway.completions
    assert completion.outcome is Outcome.CRASHED
    assert "its answer can't be read" in str(completion.error_message)
    assert "hush" not in str(completion.error_message)


def test_last_words_are_what_the_child_wrote_and_no_file_that_it_put_in_their_place(
    attempt: Attempt, gateway: PlayedGateway, child: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUSH", "hush-hush")
    source = """
    print("my own words", file=sys.stderr, flush=True)
    (folder / "stderr.log").unlink()
    (folder / "stderr.log").symlink_to("/proc/self/environ")
    sys.exit(3)
    """
    with structlog.testing.capture_logs() as log:
        attempt.run(child(source))
    assert gateway.completions[0].error_message == "the process ended with exit code 3"
    (crashed,) = [entry for entry in log if entry["event"] == "crashed"]
    assert crashed["last_words"] == "my own words"


def test_a_line_without_end_is_no_event_and_takes_no_memory(
    attempt: Attempt, gateway: PlayedGateway, child: Callable[[str], str]
) -> None:
    source = """
    say("before")
    for _ in range(8):
        os.write(1, b"x" * (1 << 20))
    os.write(1, b"\\n")
    say("after")
    answer("yielded")
    """
    attempt.run(child(source))
    assert gateway.messages == ["before", "after"]


def test_an_assignment_names_no_attempt_token() -> None:
    assert "token" not in json.dumps(Assignment.model_json_schema()["properties"])
    assert "attempt_token" not in json.dumps(Assignment.model_json_schema())
