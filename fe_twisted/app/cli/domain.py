"""``forwardemail domain``: the domains that mail is taken for."""

from __future__ import annotations

import click

from fe_twisted.app.cli.terminal import table, terminal, verb
from fe_twisted.app.store import opened
from fe_twisted.base.addresses import normalise_domain


@click.group()
@verb
def domain() -> None:
    """Domains that mail is taken for."""


@domain.command("add")
@click.argument("name")
@verb
def add(name: str) -> None:
    """Take mail for a domain."""
    out = terminal()
    with opened(out.settings()) as store:
        made = store.accounts.add_domain(name)
    out.say(f"{made.name} was added. Next: forwardemail alias add NAME@{made.name}", {"domain": made.name})


@domain.command("list")
@verb
def list_() -> None:
    """Show all domains."""
    out = terminal()
    with opened(out.settings()) as store:
        found = [{"domain": each.name, "aliases": len(store.accounts.aliases(each.name))} for each in store.accounts.domains()]
    rows = [(str(each["domain"]), str(each["aliases"])) for each in found]
    out.say(table(("DOMAIN", "ALIASES"), rows) if found else "There is no domain yet.", {"domains": found})


@domain.command("remove")
@click.argument("name")
@verb
def remove(name: str) -> None:
    """Take no more mail for a domain; its aliases must be removed first."""
    out = terminal()
    with opened(out.settings()) as store:
        store.accounts.remove_domain(name)
    out.say(f"{name} was removed.", {"domain": normalise_domain(name)})
