"""``forwardemail alias``: addresses, their passwords, and whether they take mail."""

from __future__ import annotations

import sys
from typing import Any

import click

from fe_twisted.app.ask import Meanwhile, ask
from fe_twisted.app.cli import progress
from fe_twisted.app.cli.terminal import password_from_input, table, terminal, verb
from fe_twisted.app.store import opened
from fe_twisted.base.errors import BadSettings, Refused
from fe_twisted.base.settings import Settings
from fe_twisted.protocols.cluster.values import decode, encode
from fe_twisted.servers.imap.capability import HIDEABLE
from fe_twisted.services.accounts.admin import Action, NewPassword
from fe_twisted.services.cluster.move import DONE, MOVE, MOVING, Done, Move
from fe_twisted.services.cluster.progress import PROGRESS, WATCH, Watch
from fe_twisted.storage.directory.api import Alias

#: Names as CAPABILITY has them, in any case.
_CAPABILITY = click.Choice(HIDEABLE, case_sensitive=False)

#: Seconds that a move may take: a day, for a large mailbox over a slow line.
MOVE_TIMEOUT = 86_400.0


@click.group()
@verb
def alias() -> None:
    """Addresses, each with a mailbox of its own."""


def facts(alias: Alias) -> dict[str, Any]:
    """An alias as JSON shows it."""
    return {
        "address": alias.address,
        "state": str(alias.state),
        "mailbox": alias.mailbox_id,
        "location": alias.location,
        "created_at": alias.created_at,
        "hidden_capabilities": list(alias.hidden),
    }


@alias.command("add")
@click.argument("address")
@click.option("--location", metavar="NAME", help="The primary that will have its mailbox; the one on this box if left out.")
@verb
def add(address: str, location: str | None) -> None:
    """Take mail for an address; it can be used once it has a password."""
    out = terminal()
    settings = out.settings()
    if location is not None:
        _expect_location(settings, location)
    with opened(settings) as store:
        made = store.accounts.add_alias(address, location)
    out.say(f"{made.address} was added. Next, its password: forwardemail alias password {made.address}", facts(made))


@alias.command("list")
@click.argument("domain", required=False)
@verb
def list_(domain: str | None) -> None:
    """Show all aliases, or those of DOMAIN."""
    out = terminal()
    with opened(out.settings()) as store:
        found = store.accounts.aliases(domain)
    rows = [(each.address, str(each.state), each.mailbox_id or "no password yet", each.location) for each in found]
    text = table(("ALIAS", "STATE", "MAILBOX", "LOCATION"), rows) if found else "There is no alias yet."
    out.say(text, {"aliases": [facts(each) for each in found]})


@alias.command("show")
@click.argument("address")
@verb
def show(address: str) -> None:
    """Show one alias and the credentials that open its mailbox."""
    out = terminal()
    settings = out.settings()
    here = settings.role == "primary"
    with opened(settings) as store:
        found = store.accounts.show_alias(address)
        slots = store.directory.key_slots(found.id)
        here = here and found.location == settings.location
        # Of a mailbox elsewhere only the box there knows.
        waiting = found.mailbox_id is not None and store.files.temporary_path(found.mailbox_id).exists() if here else None
    credentials = [{"kind": slot.kind, "label": slot.label, "created_at": slot.created_at} for slot in slots]
    rows = [
        ("address", found.address),
        ("state", str(found.state)),
        ("mailbox", found.mailbox_id or "none, it has no password yet"),
        ("location", found.location),
        ("mail waiting", f"ask on the box of {found.location}" if waiting is None else "yes" if waiting else "no"),
        ("created", found.created_at),
        ("hidden", ", ".join(found.hidden) or "nothing"),
    ]
    rows += [("credential", f"{slot.kind} {slot.label}".strip() + f", made {slot.created_at}") for slot in slots]
    out.say(table((), rows), facts(found) | {"waiting": waiting, "credentials": credentials})


@alias.command("remove")
@click.argument("address")
@click.option("--yes", is_flag=True, help="Do not ask, even on a terminal.")
@verb
def remove(address: str, yes: bool) -> None:
    """Remove an alias with its mailbox and all mail in it, for good."""
    out = terminal()
    with opened(out.settings()) as store:
        found = store.accounts.show_alias(address)
        if found.mailbox_id is not None and not yes and not out.json and sys.stdin.isatty():
            click.confirm(f"Delete {found.address} and all its mail for good?", abort=True, err=True)
        removed = store.accounts.remove_alias(address)
    mail = " with its mailbox" if removed.mailbox_id else ""
    out.say(f"{removed.address} was removed{mail}.", {"address": removed.address})


@alias.command("password")
@click.argument("address")
@click.option("--current-password-stdin", is_flag=True, help="Keep the mail; the current password is a line of the standard input.")
@click.option("--discard-mailbox", is_flag=True, help="Delete all mail for good and start with an empty mailbox.")
@verb
def password(address: str, current_password_stdin: bool, discard_mailbox: bool) -> None:
    """Generate a new password and show it this once.

    The first password makes the mailbox. After that nothing but a password opens it, so one of the two options must say what
    becomes of the mail.
    """
    out = terminal()
    if current_password_stdin and discard_mailbox:
        raise click.UsageError("--current-password-stdin keeps the mail and --discard-mailbox deletes it; give one of them")
    with opened(out.settings()) as store:
        found = store.accounts.show_alias(address)
        if found.mailbox_id is not None and not current_password_stdin and not discard_mailbox:
            raise Refused(
                f"{found.address} has a mailbox that only its password opens. To keep the mail give --current-password-stdin; "
                "if the password is lost, --discard-mailbox deletes all mail for good and starts with an empty mailbox."
            )
        current = password_from_input() if current_password_stdin else None
        kept = "The mail was kept." if current is not None else "The mailbox is new and empty."

        def show(made: NewPassword) -> None:
            text = f"The password of {made.address}, shown this once:\n\n    {made.password}\n\n{kept}"
            out.say(text, {"address": made.address, "password": made.password})

        # Shown before it comes into force: if it cannot be, on a full disk or a broken pipe, the old one still opens the mailbox.
        store.accounts.new_password(address, current_password=current, discard_mailbox=discard_mailbox, show=show)


@alias.command("set")
@click.argument("address")
@click.option(
    "--hide-capability",
    "hide",
    metavar="NAME",
    multiple=True,
    type=_CAPABILITY,
    help="An IMAP capability to hide; repeatable.",
)
@click.option("--show-capability", "show_", metavar="NAME", multiple=True, type=_CAPABILITY, help="Show a hidden one again; repeatable.")
@verb
def set_(address: str, hide: tuple[str, ...], show_: tuple[str, ...]) -> None:
    """Change what the clients of an alias are offered, from their next login on."""
    out = terminal()
    if not hide and not show_:
        raise click.UsageError("give --hide-capability or --show-capability")
    with opened(out.settings()) as store:
        found = store.accounts.hide(address, hide, show_)
    seen = f"do not see: {', '.join(found.hidden)}" if found.hidden else "see every capability"
    out.say(f"Clients of {found.address} {seen}.", facts(found))


@alias.command("move")
@click.argument("address")
@click.argument("location")
@verb
def move(address: str, location: str) -> None:
    """Move a mailbox to the primary LOCATION while it is being used. Run this where the mailbox is, with the server running.

    The old copy is deleted when the other primary has written the mailbox to its disk, has read it again and found it the same, and the
    directory says that it is there. If this is interrupted, repeat it. How far it is goes to the standard error.
    """
    out = terminal()
    settings = out.settings()
    _expect_location(settings, location)
    with opened(settings) as store:
        found = store.accounts.show_alias(address)
        if found.mailbox_id is None:
            found = store.accounts.place_alias(address, location)
            out.say(f"{found.address} has no mailbox yet; its first password makes it at {location}.", facts(found) | {"octets": 0})
            return
    if settings.role == "secondary":
        raise Refused(f"this box is a secondary, without mailboxes; do this on the box of the primary {found.location}, which has it")
    body = encode(MOVE, Move(found.mailbox_id, location))
    shown = progress.Shown()
    watch = encode(WATCH, Watch(found.mailbox_id))
    meanwhile = None if out.json else Meanwhile(PROGRESS, watch, progress.EVERY, shown.heard)
    try:
        done: Done = decode(DONE, ask(settings, MOVING, body, timeout=MOVE_TIMEOUT, meanwhile=meanwhile))
    finally:
        shown.end()
    with opened(settings) as store:
        found = store.accounts.show_alias(address)
    left = "" if done.tidy else f"\nWhat is left here is handed over and removed when {location} can be reached again."
    waiting = f", with {done.messages} messages that waited" if done.messages else ""
    text = f"{found.address} is at {found.location} now ({done.octets:,} octets{waiting}).{left}"
    out.say(text, facts(found) | {"octets": done.octets, "messages": done.messages, "tidy": done.tidy})


def _expect_location(settings: Settings, location: str) -> None:
    """:raises BadSettings: a name that nothing in the settings explains."""
    known = {settings.location, *settings.elsewhere()} if settings.role == "primary" else set(settings.elsewhere())
    if location not in known and known != {""}:
        names = ", ".join(sorted(known)) or "none"
        raise BadSettings(f"there is no location {location}; the settings location and primaries name: {names}")


@alias.command("enable")
@click.argument("address")
@verb
def enable(address: str) -> None:
    """Take mail again and let the owner log in."""
    _switch(address, "enable", "takes mail")


@alias.command("disable")
@click.argument("address")
@click.option(
    "--action",
    type=click.Choice(["discard", "defer", "reject"]),
    help="What becomes of mail: thrown away after 250, put off with 421, refused with 550. The default is the setting disabled_action.",
)
@verb
def disable(address: str, action: Action | None) -> None:
    """Take no mail and let nobody log in; the mailbox stays."""
    chosen: Action = action or terminal().settings().disabled_action  # type: ignore[assignment]  # one of the setting's choices
    _switch(address, chosen, {"discard": "throws its mail away", "defer": "puts its mail off", "reject": "refuses its mail"}[chosen])


def _switch(address: str, action: Action, meaning: str) -> None:
    out = terminal()
    with opened(out.settings()) as store:
        found = store.accounts.set_state(address, action)
    out.say(f"{found.address} now {meaning}.", facts(found))
