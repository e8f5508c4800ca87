"""How every process of ours uses the broker: JSON, acknowledgement in memory, no remote control.

Messages are hints: the database knows what is left to do, and what a worker took and lost is sent again. So nothing is
kept at the broker about messages that were taken, and a worker needs no key there but its own queue's.
"""

from __future__ import annotations


def celery_settings(broker_url: str, queue: str) -> dict[str, object]:
    """Settings of a Celery application that works on `queue`."""
    return {
        "broker_url": broker_url,
        "broker_connection_retry_on_startup": True,
        "broker_transport_options": {
            "ack_emulation": False,
            "priority_steps": [0],  # one list a queue
            "socket_timeout": 30,
            "socket_keepalive": True,
        },
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
