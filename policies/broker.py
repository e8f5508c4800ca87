"""How every process of ours uses the broker: JSON, early acknowledgement, no remote control, keys of its own.

Messages are hints, so none is worth a key that two components share: with a user in the broker's URL
(`redis://trainer:password@host/0`), what a worker has taken is kept under that user's name, and the broker's access
list can keep every component to its own keys.
"""

from __future__ import annotations

from urllib.parse import urlsplit

VISIBILITY_TIMEOUT_SECONDS = 24 * 3600
"""Redis gives an unacknowledged message to a second worker after this long; ours are acknowledged at once."""
NEVER_SECONDS = 10 * 365 * 24 * 3600
"""Messages of a worker that died are not looked for: the gateway sends again what nobody claimed."""


def celery_settings(broker_url: str, queue: str) -> dict[str, object]:
    """Settings of a Celery application that works on `queue`."""
    own = unacked_key(urlsplit(broker_url).username)
    return {
        "broker_url": broker_url,
        "broker_connection_retry_on_startup": True,
        "broker_transport_options": {
            "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,
            "unacked_restore_interval": NEVER_SECONDS,
            "unacked_key": own,
            "unacked_index_key": f"{own}.index",
            "unacked_mutex_key": f"{own}.mutex",
            "priority_steps": [0],  # one list a queue
            "socket_timeout": 30,
            "socket_keepalive": True,
        },
        "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,
        "accept_content": ["json"],
        "task_serializer": "json",
        "event_serializer": "json",
        "task_ignore_result": True,
        "task_acks_late": False,
        "task_default_queue": queue,
        "worker_prefetch_multiplier": 1,
        "worker_enable_remote_control": False,  # whoever reaches the broker could end every worker
        "worker_send_task_events": False,
        "task_send_sent_event": False,
    }


def unacked_key(user: str | None) -> str:
    """Where a worker that is this user at the broker keeps what it has taken."""
    return f"unacked.{user}" if user else "unacked"
