"""``forwardemail mailbox``: what can be done to a mailbox with its password in hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from fe_twisted.app.cli.terminal import password_from_input, terminal, verb
from fe_twisted.app.store import opened


@click.group()
@verb
def mailbox() -> None:
    """Mailbox files; the password of the alias is needed."""


_password = click.option("--password-stdin", is_flag=True, help="The password is a line of the standard input (required).")


def _read(password_stdin: bool) -> str:
    if not password_stdin:
        raise click.UsageError("--password-stdin is needed: nothing else opens a mailbox")
    return password_from_input()


@mailbox.command("check")
@click.argument("address")
@_password
@verb
def check(address: str, password_stdin: bool) -> int:
    """Look whether everything in a mailbox fits together."""
    out = terminal()
    password = _read(password_stdin)
    with opened(out.settings()) as store:
        alias, key = store.accounts.unlock(address, password)
        problems = store.files.check(alias.mailbox_id or "", key)
    text = "\n".join([f"{alias.address}: {len(problems)} problems", *problems]) if problems else f"{alias.address}: all is well"
    out.say(text, {"address": alias.address, "ok": not problems, "problems": problems})
    return 1 if problems else 0


@mailbox.command("stats")
@click.argument("address")
@_password
@verb
def stats(address: str, password_stdin: bool) -> None:
    """Show what a mailbox holds, and what storing things once and compressed saves."""
    out = terminal()
    password = _read(password_stdin)
    with opened(out.settings()) as store:
        alias, key = store.accounts.unlock(address, password)
        found = store.files.stats(alias.mailbox_id or "", key)
    rows = (
        ("messages", f"{found.messages:,} ({found.distinct:,} different)"),
        ("their octets", f"{found.logical:,}"),
        ("octets on disk", f"{found.on_disk:,}"),
        ("of these for search", f"{found.index:,}"),
        ("saved by copies", f"{found.saved_by_copies:,}"),
        ("saved by attachments", f"{found.saved_by_attachments:,}"),
        ("saved by compression", f"{found.saved_by_compression:,}"),
    )
    text = "\n".join([alias.address, *(f"  {name:<22}{value:>20}" for name, value in rows)])
    out.say(text, {"address": alias.address, **dataclasses.asdict(found)})


@mailbox.command("export")
@click.argument("address")
@_password
@click.option("--output", required=True, type=click.Path(path_type=Path), metavar="FILE", help="A new file.")
@verb
def export(address: str, password_stdin: bool, output: Path) -> None:
    """Write a copy that opens in any SQLite3 Multiple Ciphers program with the password."""
    out = terminal()
    password = _read(password_stdin)
    settings = out.settings()
    with opened(settings) as store:
        alias, key = store.accounts.unlock(address, password)
        mailbox_id = alias.mailbox_id or ""
        store.files.export(mailbox_id, key, output.absolute(), password)
        waiting = store.files.temporary_path(mailbox_id).exists()
    text = f"{alias.address} was copied to {output}. It opens with the password of the alias; the cipher is {settings.cipher}."
    if waiting:
        text += "\nMail that waits for the next login is not in the copy."
    out.say(text, {"address": alias.address, "output": str(output), "cipher": settings.cipher, "waiting": waiting})
