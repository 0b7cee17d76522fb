"""``forwardemail link``: the secret by which boxes know each other."""

from __future__ import annotations

import sys

import click

from fe_twisted.app.cli.terminal import terminal, verb
from fe_twisted.base.errors import Refused
from fe_twisted.base.settings import Settings
from fe_twisted.storage.vault.token import format_token, new_token, parse_token, read_tokens, write_tokens


@click.group()
@verb
def link() -> None:
    """The secret that primaries and secondaries prove themselves with."""


@link.command("token")
@click.option("--new", is_flag=True, help="Make a new secret; those that were there are still accepted.")
@click.option("--forget-old", is_flag=True, help="Accept the newest secret only.")
@verb
def token(new: bool, forget_old: bool) -> None:
    """Print the link token of this primary for its other boxes, and make it if there is none.

    Whoever has it can pass for one of your boxes: hand it over as you would a password.
    """
    out = terminal()
    settings = out.settings()
    if settings.role == "secondary":
        raise Refused("this box is a secondary: the token is made on a primary, and comes here with: forwardemail link join")
    held = _held(settings)
    secrets = [parse_token(new_token()), *held] if new or not held else held
    if forget_old:
        secrets = secrets[:1]
    if secrets != held:
        write_tokens(settings.link_secret_file, secrets)
    text = format_token(secrets[0])
    lines = [f"The link token, for the other boxes (there: forwardemail link join):\n\n    {text}\n"]
    if len(secrets) > 1:
        older = "1 older one is" if len(secrets) == 2 else f"{len(secrets) - 1} older ones are"
        lines.append(f"{older} accepted still. When every box has this one: forwardemail link token --forget-old")
    if secrets != held:
        lines.append("A server that runs reads it when it is started the next time.")
    out.say("\n".join(lines), {"token": text, "accepted": len(secrets), "changed": secrets != held})


@link.command("join")
@verb
def join() -> None:
    """Take over the link token of a primary: a line of the standard input, asked for without echo on a terminal."""
    out = terminal()
    settings = out.settings()
    typed = str(click.prompt("Link token", hide_input=True, err=True)) if sys.stdin.isatty() else sys.stdin.readline()
    if not typed.strip():
        raise click.UsageError("a link token was expected on the standard input, and nothing came")
    given = parse_token(typed)
    held = _held(settings)
    secrets = [given, *(secret for secret in held if secret != given)]
    if secrets != held:
        write_tokens(settings.link_secret_file, secrets)
    what = "was taken over" if secrets != held else "was there already"
    out.say(f"The link token {what}: {settings.link_secret_file}", {"accepted": len(secrets), "changed": secrets != held})


def _held(settings: Settings) -> list[bytes]:
    """The secrets of this box; none when there is no file yet."""
    return read_tokens(settings.link_secret_file) if settings.link_secret_file.exists() else []
