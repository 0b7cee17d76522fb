"""``forwardemail mailbox``: what can be done to a mailbox with its password in hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from fe_twisted.app.cli.terminal import password_from_input, terminal, verb
from fe_twisted.app.store import opened
from fe_twisted.storage.mailbox.rescue import Rescued
from fe_twisted.storage.mailbox.salvage import Place, sentence


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
    """Look whether everything in a mailbox fits together, and what of a damaged one can be read."""
    out = terminal()
    password = _read(password_stdin)
    with opened(out.settings()) as store:
        alias, key = store.accounts.unlock(address, password)
        found = store.files.examine(alias.mailbox_id or "", key)
    count = f"{len(found.problems)} problem{'s' * (len(found.problems) != 1)}"
    head = f"{alias.address}: {count}" if found.problems else f"{alias.address}: all is well"
    result: dict[str, object] = {"address": alias.address, "ok": not found.problems, "problems": found.problems}
    if found.damaged:
        result |= {"notes": found.notes, "damaged": found.damaged, "lost": _places(found.lost), "hit": _places(found.hit)}
    out.say("\n".join([head, *found.problems, *(f"({note})" for note in found.notes)]), result)
    return 1 if found.problems else 0


def _places(places: Iterable[Place]) -> list[dict[str, object]]:
    return [{"folder": place.folder, "uid": place.uid} for place in places]


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
def export(address: str, password_stdin: bool, output: Path) -> int:
    """Write a copy that opens in any SQLite3 Multiple Ciphers program with the password.

    Of a damaged mailbox it has every message that can still be read, and the exit status is 1.
    """
    out = terminal()
    password = _read(password_stdin)
    settings = out.settings()
    with opened(settings) as store:
        alias, key = store.accounts.unlock(address, password)
        mailbox_id = alias.mailbox_id or ""
        rescued = store.files.export(mailbox_id, key, output.absolute(), password)
        waiting = store.files.temporary_path(mailbox_id).exists()
    text = f"{alias.address} was copied to {output}. It opens with the password of the alias; the cipher is {settings.cipher}."
    if waiting:
        text += "\nMail that waits for the next login is not in the copy."
    result: dict[str, object] = {"address": alias.address, "output": str(output), "cipher": settings.cipher, "waiting": waiting}
    if rescued is not None:
        text = "\n".join([text, *_told(rescued)])
        result["rescued"] = {
            "messages": rescued.messages,
            "whole": rescued.whole,
            "lost": _places(rescued.lost),
            "bare": _places(rescued.bare),
            "strays": _places(rescued.strays),
            "uncounted": rescued.uncounted,
            "missing": rescued.missing,
            "damaged": rescued.damaged,
        }
    out.say(text, result)
    return 0 if rescued is None else 1


def _told(rescued: Rescued) -> Iterator[str]:
    """What became of a damaged mailbox, as sentences."""
    yield f"The mailbox file is damaged ({', '.join(rescued.damaged)}). The copy has {rescued.messages} messages."
    if rescued.whole:
        yield "These are all: no mail is lost. The search index is not in the copy."
    if rescued.lost:
        yield f"Not in the copy, because they cannot be read: {len(rescued.lost)} messages: {sentence(rescued.lost)}"
    for folder, number in rescued.uncounted.items():
        yield f"Of folder {folder} {number} messages more are not where they were: nothing says any more which they are."
    if rescued.strays:
        yield f"In a folder of their own, because nobody knows in which they were: {sentence(rescued.strays)}"
    if rescued.bare:
        yield f"In the copy without their flags and their date of arrival: {sentence(rescued.bare)}"
    if rescued.missing:
        yield f"Not in the copy, or not all of it: {', '.join(rescued.missing)}"
