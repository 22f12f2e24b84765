"""Text from outside as it is shown: nothing in it steers the terminal, and no secret of a command or a URL is in it."""

import re
from typing import Any, TextIO

# Control characters but for tabs and line breaks, what turns the direction of writing, and halves of characters.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_NAME = r"[\w.-]{0,40}"
_SECRETS = [
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        (r"(?<=://)[^/\s]+@", "***@"),  # user:password
        (rf"([?&]{_NAME}(?:token|key|secret|sig|passw|credential|auth){_NAME}=)[^&#\s]+", r"\1***"),
        (rf"(--(?!think_end_token){_NAME}(?:token|key|secret|password)[= ])\S+", r"\1***"),
        (r"\b(?:hf_|sk-|ghp_|glpat-)[\w-]{16,}", "***"),  # as Hugging Face, OpenAI, GitHub and GitLab make them
    )
]


def plain(text: str) -> str:
    """The text with the escapes of characters that would act instead of being seen."""
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text)


def discreet(text: str) -> str:
    """The text with *** for what lets one in: passwords and tokens in URLs, values of flags such as --api_key."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


class Terminal:
    """A stream whose text is shown plain and discreetly; libraries take it for a file, and do not colour it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(discreet(plain(text)))
        return len(text)

    def isatty(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
