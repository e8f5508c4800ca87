from __future__ import annotations

import pytest

from evaluator.trigger_mining.languages import language_of


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How do I fix the tap in my kitchen?", None),
        ("Wie kann ich den Hahn reparieren, und ist das gut?", "German"),
        ("Comment est-ce que je peux le réparer avec les outils ?", "French"),
        ("¿Cómo puedo reparar el grifo y la puerta de mi casa?", "Spanish"),
        ("Как починить кран?", "CYRILLIC"),
        ("水道の蛇口", "CJK"),
        ("12 + 7", None),
        ("", None),
    ],
)
def test_language_is_told_by_letters_and_common_words(text: str, language: str | None) -> None:
    assert language_of(text) == language
