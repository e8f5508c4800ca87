"""What a tenant is told of words that a library or a worker made up: one line, no traceback, no place on a machine."""

from __future__ import annotations

import re

_TRACE = re.compile(
    r"(?:Exception Group )?Traceback \(most recent call|Fatal Python error|(?:Current thread|Thread) 0x"
    r'|File "[^"\n]*", line '
)
"""Where a traceback begins, or what is left of one that was cut."""
_PUBLIC = frozenset({"hf", "package"})
"""Schemes of addresses that say nothing of the machine."""
_PUBLIC_PLACES = ("https://huggingface.co/",)
_PLACE = re.compile(
    r"""(?<![a-z0-9+.-])(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<address>[^\s'"`,;()\[\]]*)"""
    r"""|(?P<quote>['"`])/(?P<quoted>[^'"`\n]*)(?P=quote)"""
    r"""|(?<![\w/.])[.]{0,2}/(?:[^\s/'"`,;:()\[\]]+/)+(?P<last>[^\s/'"`,;:()\[\]]*)""",
    re.IGNORECASE,
)


def for_tenants(text: str) -> str:
    """`text` without what is the operator's: no traceback, and of a path on a machine or in a store its last part."""
    words = _TRACE.split(text, maxsplit=1)[0]
    lines = (line.strip(" \t|+") for line in words.splitlines())
    told = " ".join(line for line in lines if line) or "No reason was given."
    return _PLACE.sub(_last_part, told)


def _last_part(found: re.Match[str]) -> str:
    scheme, address, quote = found["scheme"], found["address"], found["quote"]
    if scheme is not None:
        if scheme.lower() in _PUBLIC or found[0].startswith(_PUBLIC_PLACES):
            return found[0].partition("?")[0]
        _, separator, last = address.partition("?")[0].partition("/")
        return f"{scheme}:\u2026/{last.rpartition('/')[2]}" if separator else f"{scheme}:\u2026"
    if quote is not None:
        folder, _, last = found["quoted"].rpartition("/")
        return f"{quote}\u2026/{last}{quote}" if folder else found[0]
    return f"\u2026/{found['last']}"
