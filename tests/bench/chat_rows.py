"""Rows of chat data."""

from __future__ import annotations

import json


def chat_line(question: str) -> str:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "Turn it."}]
    return json.dumps({"messages": messages}) + "\n"
