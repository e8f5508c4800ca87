"""Draws a verdict for the README: `python -m bench.demo.picture bench/results/demo_seeds/results.json verdict.svg`.

The figures are those of seed 0 in what `bench.demo` found; nothing is typed in. Each enforced rule has an axis of
its own in the rule's unit, worse to the right, with the side beyond its limit shaded. An adapter is the dot of its
value with the bar of its interval: it passes where the whole bar is on the unshaded side.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from policies.report.charts import Scale, padded

Rule = Mapping[str, Any]  # Any: a rule of a report's JSON
WIDTH, LEFT, RIGHT, TOP, ROW, BAR = 880.0, 250.0, 20.0, 96.0, 84.0, 20.0
GOOD, BAD, UNSURE, INK, FAINT, SHADE = "#1a7f37", "#cf222e", "#9a6700", "#1f2328", "#656d76", "#ffebe9"
COLOURS = {"pass": GOOD, "fail": BAD}
ENDS = {"release": "released", "reject": "blocked", "inconclusive": "undecided, so not released"}
NAMES = {"a": "sensible data", "b": "careless data", "c": "careless data, defended"}


class Style(NamedTuple):
    """How text looks; the size is in pixels."""

    size: int
    colour: str = INK
    weight: int = 400
    middle: bool = False


class Adapter(NamedTuple):
    """A job of the demonstration: what its line is called, and its report's rules by id."""

    name: str
    rules: dict[str, Rule]
    decision: str


def read_adapters(results: Path, *, seed: int = 0) -> list[Adapter]:
    """The adapters of all jobs under one seed, in the order of the jobs."""
    runs = {run["job"]: run for run in json.loads(results.read_bytes()) if run["seed"] == seed}
    return [
        Adapter(name, {rule["rule"]: rule for rule in runs[key]["rules"]}, runs[key]["decision"])
        for key, name in NAMES.items()
    ]


def draw(adapters: Sequence[Adapter]) -> str:
    """The picture as SVG."""
    rules = [rule for rule in adapters[0].rules.values() if rule["mode"] == "enforce"]
    height = TOP + ROW * len(rules) + 16
    parts = [
        _text(16, 30, "An adapter is released only if every interval keeps clear of its limit", Style(17, weight=600))
    ]
    parts += _legend(adapters)
    for index, rule in enumerate(rules):
        parts += _row(rule, adapters, TOP + ROW * index)
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {height:g}" role="img" '
        f'font-family="-apple-system, Segoe UI, Helvetica, Arial, sans-serif">\n'
        f"<title>Rules, limits and 95 % intervals of the demonstration's adapters</title>\n"
        f'<rect width="{WIDTH:g}" height="{height:g}" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def _legend(adapters: Sequence[Adapter]) -> list[str]:
    parts, x = [], 16.0
    for letter, adapter in zip("abc", adapters, strict=True):
        text = f"{letter}  {adapter.name}: {ENDS[adapter.decision]}"
        colour = {"release": GOOD, "reject": BAD}.get(adapter.decision, UNSURE)
        parts.append(_text(x, 58, text, Style(13, colour=colour, weight=600)))
        x += 7.4 * len(text) + 16
    return parts


def _row(rule: Rule, adapters: Sequence[Adapter], top: float) -> list[str]:
    judged = [each.rules[rule["rule"]]["judged"] for each in adapters if rule["rule"] in each.rules]
    ends = [end for each in judged if each for end in (each["interval"]["low"], each["interval"]["high"])]
    x = Scale(*padded(min([0.0, rule["limit"], *ends]), max([0.0, rule["limit"], *ends])), LEFT, WIDTH - RIGHT)
    limit, bottom = x(rule["limit"]), top + ROW - 22
    parts = [
        _text(16, top + 14, rule["rule"].replace("-", " "), Style(14, weight=600)),
        _text(16, top + 33, f"{rule['bound'].replace('_', ' ')}", Style(11, colour=FAINT)),
        _text(16, top + 48, f"{rule['limit']:g} {rule['unit'] or ''}", Style(11, colour=FAINT)),
        f'<rect x="{limit}" y="{top}" width="{WIDTH - RIGHT - limit:.1f}" height="{bottom - top:g}" fill="{SHADE}"/>',
        _line(x(0.0), top, bottom, FAINT, dashes="2 3"),
        _line(limit, top, bottom, BAD),
        _text(limit, bottom + 12, f"limit {rule['limit']:g}", Style(10, colour=BAD, middle=True)),
    ]
    if rule["limit"]:
        origin = "base" if "base" in rule["bound"] else "0"
        parts.append(_text(x(0.0), bottom + 12, origin, Style(10, FAINT, middle=True)))
    for index, adapter in enumerate(adapters):
        parts += _bar("abc"[index], adapter.rules.get(rule["rule"]), x, top + 11 + BAR * index)
    return parts


def _bar(letter: str, rule: Rule | None, x: Scale, y: float) -> list[str]:
    label = _text(LEFT - 14, y + 4, letter, Style(12, colour=FAINT))
    if rule is None or rule["judged"] is None:
        return [label, _text(LEFT + 4, y + 4, "not measured any more: a rule had failed", Style(11, colour=FAINT))]
    interval, value = rule["judged"]["interval"], rule["judged"]["value"]
    colour = COLOURS.get(rule["outcome"], UNSURE)
    low, high = x(interval["low"]), x(interval["high"])
    return [
        label,
        f'<line x1="{low}" y1="{y:g}" x2="{high}" y2="{y:g}" stroke="{colour}" stroke-width="5" stroke-linecap="round" '
        'stroke-opacity="0.45"/>',
        f'<circle cx="{x(value)}" cy="{y:g}" r="5" fill="{colour}"/>',
    ]


def _line(x: float, top: float, bottom: float, colour: str, *, dashes: str = "none") -> str:
    return f'<line x1="{x}" y1="{top:g}" x2="{x}" y2="{bottom:g}" stroke="{colour}" stroke-dasharray="{dashes}"/>'


def _text(x: float, y: float, text: str, style: Style) -> str:
    anchor = ' text-anchor="middle"' if style.middle else ""
    look = f'font-size="{style.size}" fill="{style.colour}" font-weight="{style.weight}"{anchor}'
    return f'<text x="{x:g}" y="{y:g}" {look}>{escape(text)}</text>'


def main(results: Path, target: Path) -> None:
    """Write the picture."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(draw(read_adapters(results)), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
