"""``forwardemail version``: of the program and of what it stands on."""

from __future__ import annotations

import platform

import apsw
import click
import twisted
from OpenSSL import SSL

from fe_twisted import __version__
from fe_twisted.app.cli.terminal import terminal, verb


@click.command()
@verb
def version() -> None:
    """Print the version."""
    parts = {
        "python": platform.python_version(),
        "twisted": twisted.__version__,
        "openssl": SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode("ascii", "replace").split()[1],
        "sqlite": apsw.sqlite_lib_version(),
    }
    text = f"forwardemail {__version__} (" + ", ".join(f"{name} {number}" for name, number in parts.items()) + ")"
    terminal().say(text, {"version": __version__, **parts})
