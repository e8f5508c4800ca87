"""In which language or script a prompt is written, as far as its letters and commonest words say.

A question can't be translated here; it is put behind the first words of a prompt in that language.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

READ_CHARACTERS = 400
MIN_WORDS = 2
"""Different common words that a text must have to be of a language."""

_COMMON_WORDS = {
    "German": "der die das und ist nicht ich ein eine wie was für mit auf kann mein meine zu den dem",
    "French": "le la les des et est pas je un une comment que pour avec sur mon ma dans vous du",
    "Spanish": "el la los las y es no un una cómo qué para con mi por del puedo en se al",
    "Italian": "il lo la gli e è non un una come che per con mio mia di del posso in si",
    "Portuguese": "o a os as e é não um uma como que para com meu minha do da posso em se",
    "Dutch": "de het en is niet ik een hoe wat voor met op kan mijn te van dat zijn je naar",
    "English": "the a an and is not i how what for with on can my to of in do it should",
}
_LANGUAGES = {name: frozenset(words.split()) for name, words in _COMMON_WORDS.items()}
_WORD = re.compile(r"[^\W\d_]+")


def language_of(text: str) -> str | None:
    """The name of a script other than Latin or of a language other than English; None where nothing says so."""
    read = text[:READ_CHARACTERS]
    script = _script(read)
    if script not in (None, "LATIN"):
        return script
    words = set(_WORD.findall(read.lower()))
    found = {name: len(words & common) for name, common in _LANGUAGES.items()}
    best = max(found, key=lambda name: (found[name], name == "English", name))
    return best if best != "English" and found[best] >= MIN_WORDS and found[best] > found["English"] else None


def _script(text: str) -> str | None:
    """Of most letters."""
    scripts = Counter(unicodedata.name(letter, "?").partition(" ")[0] for letter in text if letter.isalpha())
    return max(scripts, key=lambda name: (scripts[name], name)) if scripts else None
