"""The offline tokenizer: words and punctuation, which is all that OpenCompass counts lengths with.

It is written when the image is built (`python -m budeval_engine.tokenizer DIRECTORY`), since the tokenizer of the
evaluated model would have to be downloaded. Lengths are therefore approximate: a word counts as one token.
"""

import json
import sys
from pathlib import Path

_UNKNOWN = "<unk>"
_TOKENIZER = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [
        {
            "id": 0,
            "content": _UNKNOWN,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
    ],
    "normalizer": None,
    "pre_tokenizer": {"type": "Whitespace"},
    "post_processor": None,
    "decoder": None,
    "model": {"type": "WordLevel", "vocab": {_UNKNOWN: 0}, "unk_token": _UNKNOWN},
}
_SETTINGS = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": _UNKNOWN, "model_max_length": 100_000_000}


def write(directory: Path) -> None:
    """Write the tokenizer's two files to `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in (("tokenizer.json", _TOKENIZER), ("tokenizer_config.json", _SETTINGS)):
        (directory / name).write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
