"""``forwardemail directory``: where domains, aliases and key slots are kept."""

from __future__ import annotations

import os

import click

from fe_twisted.app.cli.terminal import terminal, verb
from fe_twisted.app.store import directory_of, opened
from fe_twisted.base.load import load
from fe_twisted.base.settings import PREFIX
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
    there = load(settings.file, {**os.environ, f"{PREFIX}DIRECTORY_URL": url})
    with opened(settings) as store:
        target = directory_of(there, store.server_key)
        try:
            copied = copy_directory(store.directory, target)
        finally:
            target.close()
    counts = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in copied.rows.items())
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
