"""An e-process against "these figures come in no particular order": it grows when later ones differ from earlier ones.

Night after night the same adapters are measured. As long as nothing has changed, every order of their figures is as
likely as any other. Then the smoothed ranks (Vovk, Nouretdinov & Gammerman 2003, "Testing exchangeability on-line")

    p_t = (#{s ≤ t: x_s > x_t} + u_t · #{s ≤ t: x_s = x_t}) / t,    u_t uniform on (0, 1)

are independent and uniform whatever the distribution of the figures, figures that never move included. Nothing about
normality, a variance or a mean has to be assumed or estimated.

Against them is bet with power functions, as a simple jumper (Vovk 2021, Statistical Science 36:595, with powers in
place of its linear bets): capital lies in three states, which multiply it by 1, by ε p^(ε − 1), large when the newest
figure is high, and by ε (1 − p)^(ε − 1), large when it is low. Each has the mean 1 for a uniform p. Before each bet a
share J of all capital is divided anew among the states, so that what was lost in quiet years costs little when it
matters. The sum of the states is a martingale that begins at 1, so by Ville's inequality (1939)

    P(it ever reaches 1 / α) ≤ α,

however often one looks. The mean over several figures' martingales is one too. A change is seen only against figures of
before it, and becomes the rule after as many: about thirty are needed for a change of two standard deviations.
"""

from __future__ import annotations

import bisect
import hashlib
import math
from collections.abc import Sequence

EXPONENT = 0.5
"""ε of the bets."""
JUMP = 0.05
"""J, of the capital at each look."""
ALPHA = 0.05
"""Probability of an alarm, ever, while nothing has changed."""
THRESHOLD = 1 / ALPHA


def e_values(figures: Sequence[float | None], *, key: str) -> list[float]:
    """The e-process of one series at each look.

    Args:
        figures: in order of time; None where there was none, and nothing is bet.
        key: names the series; the uniform numbers that break ties follow from it, so that they can't be chosen.

    Raises:
        ValueError: a figure is not finite.
    """
    found, states, earlier = [], [1 / 3] * 3, list[float]()
    for look, figure in enumerate(figures):
        if figure is None:
            found.append(math.fsum(states))
            continue
        if not math.isfinite(figure):
            raise ValueError(f"the figures of {key} must be finite, not {figure}")
        below, upto = bisect.bisect_left(earlier, figure), bisect.bisect_right(earlier, figure)
        earlier.insert(upto, figure)
        ties = upto - below + 1
        p = (len(earlier) - below - ties + _uniform(key, look) * ties) / len(earlier)
        bets = (1.0, EXPONENT * p ** (EXPONENT - 1), EXPONENT * (1 - p) ** (EXPONENT - 1))
        capital = math.fsum(states)
        states = [((1 - JUMP) * state + JUMP * capital / 3) * bet for state, bet in zip(states, bets, strict=True)]
        found.append(math.fsum(states))
    return found


def _uniform(key: str, look: int) -> float:
    """In (0, 1), ends excluded."""
    content = hashlib.sha256(f"{key} {look}".encode()).digest()
    return (int.from_bytes(content[:6]) + 0.5) / 2**48
