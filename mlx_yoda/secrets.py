"""Access tokens, kept out of all text that leaves: files, metrics, errors, the terminal.

Text leaves through four doors, and each of them calls `redact`: `files.write_text`, the reporters
(`report.redaction`), `errors.UserError`, and the streams of the command line (`cli.streams`).
"""

import os
import re

_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_API_TOKEN", "HUGGINGFACEHUB_API_TOKEN")
_SHORTEST = 8  # characters; what is shorter is no token, and may be a part of any word

# What tokens look like, whatever they come from: the Hub's own kinds, HTTP's header, a URL's user,
# the signature of a storage's URL (Amazon's, Google's, CloudFront's, Azure's).
_SHAPES = (
    (re.compile(r"\b(hf|api_org)_[A-Za-z0-9]{20,}"), r"\1_***"),
    (re.compile(r"\bhf_(oauth|jwt|app)_[\w.\-]{16,}"), r"hf_\1_***"),
    (re.compile(r"(?i)\b(bearer\s+)[\w.\-~+/]{16,}=*"), r"\1***"),
    (re.compile(r"(?i)\b(https?://)[^\s/@'\"]+@"), r"\1***@"),
    (
        re.compile(
            r"(?i)\b(x-(?:amz|goog)-(?:signature|credential|security-token)(?:=|%3d))[^\s&'\"<>]+"
        ),
        r"\1***",
    ),
    (
        re.compile(r"(?i)((?:[?&;]|%26)(?:signature|policy|key-pair-id|sig)=)[^\s&'\"<>]{12,}"),
        r"\1***",
    ),
)


def redact(text: str) -> str:
    """The text with every access token in it replaced by `***`.

    A token is what one of the Hub's environment variables holds at the moment, or what looks like
    one of the Hub's tokens, a bearer token, the user and password of a URL, or what signs one.
    """
    for variable in _VARIABLES:
        value = os.environ.get(variable, "").strip()
        if len(value) >= _SHORTEST:
            text = text.replace(value, "***")
    for shape, instead in _SHAPES:
        text = shape.sub(instead, text)
    return text
