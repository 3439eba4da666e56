"""The page: one file, which may run its own script and ask its own server, and nothing else."""

import secrets
from importlib.resources import files as package_files

_NONCE = "{{ nonce }}"


def page() -> tuple[bytes, dict[str, str]]:
    """The HTML, and the headers that hold the browser to it."""
    nonce = secrets.token_urlsafe(16)
    text = package_files("mlx_yoda.serve").joinpath("page.html").read_text("utf-8")
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": policy}
    return text.replace(_NONCE, nonce).encode(), headers
