"""Turns the pickles of alt-profanity-check 1.9.1 into the text and safetensors beside this file, once.

The only place that reads a pickle, and no other module imports it. Both files are checked against their digests before
joblib sees them, so this runs what was reviewed or nothing. In an environment of its own:

    pip install alt-profanity-check==1.9.1 safetensors
    python -m evaluator.detectors.profanity.convert FOLDER

FOLDER gets `words.txt` and `weights.safetensors`, byte for byte those that are shipped.
"""

from __future__ import annotations

import importlib.util
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from evaluator.detectors.profanity.classifier import WEIGHTS_FILE, WORDS_FILE, Weights
from policies.contract.artifacts import digest_bytes
from policies.errors import ConfigurationError, IntegrityError

PINNED = {
    "model.joblib": "sha256:aeafc04849d4d93db4721cf30a86ebf22085595294b8a07d51918e7fa98f538b",
    "vectorizer.joblib": "sha256:19c5200dc6a41f026e0558e2f164f5fe8d8f58e502b46b37e4385037fcfa4831",
}
VECTORIZER = {"lowercase": True, "strip_accents": None, "token_pattern": r"(?u)\b\w\w+\b", "ngram_range": (1, 1)} | {
    "analyzer": "word", "binary": False, "norm": "l2", "use_idf": True, "sublinear_tf": False,
    "preprocessor": None, "tokenizer": None,
}  # fmt: skip
"""What the classifier is written for. Stop words don't matter: none of them is among the words."""


def main(folder: Path) -> None:
    """Write both files into `folder`, and say what their digests are."""
    vectorizer, model = original()
    settings = vectorizer.get_params()
    if {name: settings[name] for name in VECTORIZER} != VECTORIZER or list(model.classes_) != [0, 1]:
        raise ConfigurationError("the wheel's model splits or weights words in a different way from the classifier")
    words = sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.__getitem__)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WORDS_FILE).write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    save_file(_weights(vectorizer, model)._asdict(), folder / WEIGHTS_FILE)
    for name in (WORDS_FILE, WEIGHTS_FILE):
        print(name, digest_bytes((folder / name).read_bytes()))


def original() -> tuple[Any, Any]:  # Any: scikit-learn is not installed where types are checked
    """Vectorizer and model of the installed wheel.

    Raises:
        ConfigurationError: it is not installed.
        IntegrityError: a file is another one than was reviewed; nothing of it was unpickled.
    """
    return _unpickled("vectorizer.joblib"), _unpickled("model.joblib")


def _weights(vectorizer: Any, model: Any) -> Weights:  # Any: see original
    folds = model.calibrated_classifiers_
    return Weights(
        idf=vectorizer.idf_,
        coefficients=np.ascontiguousarray(np.concatenate([fold.estimator.coef_ for fold in folds]).T),
        intercepts=np.concatenate([fold.estimator.intercept_ for fold in folds]),
        slopes=np.array([fold.calibrators[0].a_ for fold in folds]),
        offsets=np.array([fold.calibrators[0].b_ for fold in folds]),
    )


def _unpickled(name: str) -> Any:  # Any: see original
    import joblib

    package = importlib.util.find_spec("profanity_check")
    if package is None or package.origin is None:
        raise ConfigurationError("alt-profanity-check is not installed here; pip install alt-profanity-check==1.9.1")
    content = (Path(package.origin).parent / "data" / name).read_bytes()
    if digest_bytes(content) != PINNED[name]:
        raise IntegrityError(f"{name} is not the file of alt-profanity-check 1.9.1, so it is not unpickled")
    return joblib.load(io.BytesIO(content))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
