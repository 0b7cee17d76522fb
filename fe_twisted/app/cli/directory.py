"""``forwardemail directory``: where domains, aliases and key slots are kept."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import click

from fe_twisted.app.claim import claim
from fe_twisted.app.cli.terminal import terminal, verb
from fe_twisted.app.store import directory_of, opened
from fe_twisted.base.errors import BadSettings, Busy, Refused
from fe_twisted.base.load import load, wrong_location_name
from fe_twisted.base.settings import PREFIX, Settings
from fe_twisted.storage.directory.copy import copy_directory


@click.group()
@verb
def directory() -> None:
    """Domains, aliases and key slots as a whole."""


@directory.command("copy")
@click.option("--to", "url", required=True, metavar="URL", help="An empty database: postgresql://user@host/database?passfile=/file.")
@verb
def copy(url: str) -> None:
    """Copy the directory that the settings name into an empty PostgreSQL database, and compare the two.

    The settings stay as they are. Change nothing in the directory between this and the start with the new directory_url.
    """
    out = terminal()
    settings = out.settings()
    try:
        there = load(settings.file, {**os.environ, f"{PREFIX}DIRECTORY_URL": url})
    except BadSettings as error:  # without it they can be used, so it is the one problem
        raise BadSettings(f"--to: {error.public.partition('DIRECTORY_URL: ')[2]}") from error
    with opened(settings) as store:
        target = directory_of(there, store.server_key)
        try:
            copied = copy_directory(store.directory, target)
        finally:
            target.close()
    counts = ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in copied.rows.items())
    text = "\n".join(
        [
            f"Copied and compared: {counts}.",
            f"SHA-256 of both: {copied.digest}",
            "",
            f"Next, in {settings.file}, then start the server again:",
            f'    directory_url = "{url}"',
            *([f"The file {settings.directory_file} is not used any more then; keep it until you have a backup of the database."]
              if not settings.directory_url else []),
        ]
    )  # fmt: skip
    out.say(text, {"rows": copied.rows, "digest": copied.digest})


@directory.command("rename-location")
@click.argument("old")
@click.argument("new")
@verb
def rename_location(old: str, new: str) -> None:
    """Call a primary NEW in the directory, which was OLD. Run this on its box, with the server there stopped.

    Mailboxes stay where they are; to move one to another primary is forwardemail alias move. The setting location becomes NEW as well, and
    so does the name in the setting primaries of all other boxes. Mail that comes to those meanwhile waits there, sealed.
    """
    out = terminal()
    settings = out.settings()
    if wrong := wrong_location_name(new):
        raise BadSettings(wrong)
    if settings.role != "primary" or settings.location not in (old, new):
        raise Refused(f"this box is not {old}; do this where the mailboxes are, so that nobody has them open")
    if old in settings.elsewhere():
        raise Refused(
            f"{old} is another primary, by the setting primaries, and may be running; do this on its box, or forget it there first"
        )
    if new in settings.elsewhere():
        raise Refused(f"{new} is the name of another primary; the setting primaries has it")
    with _stopped(settings), opened(settings) as store:
        number = store.accounts.rename_location(old, new)
    text = "\n".join(
        [
            f"{number} {'alias is' if number == 1 else 'aliases are'} at {new} now.",
            *([f'Next, in {settings.file}: location = "{new}"'] if settings.location != new else []),
            f"Other boxes: in the setting primaries, {new}= in the place of {old}=, then start their servers again.",
        ]
    )
    out.say(text, {"aliases": number, "location": new})


@contextlib.contextmanager
def _stopped(settings: Settings) -> Iterator[None]:
    """No server runs with the mailboxes of this box, and none can be started.

    :raises Busy: one runs.
    """
    claimed: list[int] = []
    try:
        try:
            claimed.append(claim(settings.data_folder, "the data folder"))
            claimed.append(claim(settings.mailbox_folder))
        except BadSettings as error:
            raise Busy("the server is running, and may have mailboxes open; stop it first", reason=error.public) from error
        yield
    finally:
        for each in claimed:
            os.close(each)
