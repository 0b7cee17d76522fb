"""``forwardemail init``: the first run, which asks nothing and explains everything."""

from __future__ import annotations

import datetime
import os
import shlex
import shutil
import sys
from pathlib import Path

import click

from fe_twisted.app.cli.terminal import terminal, verb
from fe_twisted.app.setup import EXAMPLE_ALIASES, EXAMPLE_DOMAIN, Made, create
from fe_twisted.base.settings import PREFIX, Settings

_DOORS = {"mx": "SMTP (MX)", "imap": "IMAP", "imaps": "IMAP over TLS", "link": "link"}


@click.command()
@click.option("--data", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="The folder for all data.")
@click.option("--hostname", metavar="NAME", help="The server's name in MX records; else this machine's full name.")
@click.option(
    "--development",
    is_flag=True,
    help="To try things out: loopback only, ports moved by 2000 unless told otherwise, passwords without TLS.",
)
@click.option("--port-offset", type=click.IntRange(0, 60000), metavar="N", help="Move every port by N.")
@click.option("--example", is_flag=True, help=f"Also add {EXAMPLE_DOMAIN} with two aliases (with --development).")
@click.option("--role", type=click.Choice(["primary", "secondary"]), default="primary", help="A secondary has no mailboxes of its own.")
@click.option("--primary", metavar="URL", help="Of a secondary: wss://host:port, the port being the primary's link_port.")
@click.option("--directory-url", metavar="URL", help="The directory is in PostgreSQL: postgresql://user@host/database?passfile=/file.")
@verb
def init(
    data: Path,
    hostname: str | None,
    development: bool,
    port_offset: int | None,
    example: bool,
    role: str,
    primary: str | None,
    directory_url: str | None,
) -> None:
    """Make a data folder: settings, server key, certificate, directory. A folder that is there already is left as it is."""
    if example and not development:
        raise click.UsageError("--example is for trying things out and needs --development")
    if role == "secondary" and (primary is None or directory_url is None or example):
        raise click.UsageError("a secondary needs --primary and --directory-url, and gets no example: its mailboxes are elsewhere")
    if role == "primary" and primary is not None:
        raise click.UsageError("--primary is for a secondary; give --role secondary")
    now = datetime.datetime.now(datetime.UTC)
    made = create(
        data,
        hostname=hostname,
        development=development,
        port_offset=port_offset,
        example=example,
        now=now,
        directory_url=directory_url,
        primary=primary,
    )
    result = {
        "new": made.new,
        "data": str(made.settings.data_folder),
        "config": str(made.settings.file),
        "hostname": made.settings.hostname,
        "development": made.settings.development,
        "role": made.settings.role,
        "ports": made.settings.ports(),
        "aliases": [{"address": each.address, "password": each.password} for each in made.passwords],
    }
    lines = _secondary(made) if role == "secondary" else _development(made) if made.settings.development else _production(made)
    terminal().say("\n".join(lines), result)


def _development(made: Made) -> list[str]:
    settings = made.settings
    passwords = {each.address: each.password for each in made.passwords}
    state = "is set up" if made.new else "was there already; nothing was changed"
    lines = [f"A server to try things out {state} in {_short(settings.data_folder)}.", ""]
    lines += [f"  {_DOORS[door]:<14} 127.0.0.1 port {port}" for door, port in settings.ports().items()]
    if passwords:
        lines.append(f"  {'domain':<14} {EXAMPLE_DOMAIN}")
        lines += [f"  {'alias':<14} {address}  password {password}" for address, password in passwords.items()]
        lines.append(f"  {'':<14} (shown this once)")
    if made.new and not passwords:  # nobody is there to write to
        return [*lines, "", *_first_address(settings)]
    return [*lines, "", *_to_paste(settings, passwords.get(EXAMPLE_ALIASES[0], "PASSWORD"))]


def _first_address(settings: Settings) -> list[str]:
    """Start it, and have an address."""
    program, file, new = _program(), _short(settings.file), f"you@{EXAMPLE_DOMAIN}"
    verbs = (f"domain add {EXAMPLE_DOMAIN}", f"alias add {new}", f"alias password {new}")
    return [
        "Start it:",
        f"  {_beside(program)} --nodaemon --pidfile= forwardemail --config {file}",
        "Add a domain and an alias:",
        f"  export {PREFIX}CONFIG={file}; {' && '.join(f'{program} {verb}' for verb in verbs)}",
    ]


def _to_paste(settings: Settings, password: str) -> list[str]:
    """Send a message, read it, add an alias: with curl where it is, else with Python, which is there for sure."""
    address, ports = EXAMPLE_ALIASES[0], settings.ports()
    mx, imap = ports.get("mx", 0), ports.get("imap", 0)
    python = _short(Path(sys.executable))
    if shutil.which("curl"):
        send = (
            rf"printf 'Subject: Hello\r\n\r\nIt works.\r\n' | curl -sST - smtp://127.0.0.1:{mx}"
            f" --mail-from me@example.net --mail-rcpt {address}"
        )
        read = f"curl -sSk --ssl-reqd -u {address}:{password} 'imap://127.0.0.1:{imap}/INBOX;MAILINDEX=1'"
    else:
        send = (
            f'{python} -c \'import smtplib; smtplib.SMTP("127.0.0.1", {mx}).sendmail('
            rf'"me@example.net", "{address}", "Subject: Hello\n\nIt works.")' + "'"
        )
        read = (
            f'{python} -c \'import imaplib; m = imaplib.IMAP4("127.0.0.1", {imap}); m.login("{address}", "{password}"); '
            'm.select(); print(m.fetch("1", "(BODY[])")[1][0][1].decode())\''
        )
    program, new = _program(), f"new@{EXAMPLE_DOMAIN}"
    add = f"export {PREFIX}CONFIG={_short(settings.file)}; {program} alias add {new} && {program} alias password {new}"
    return ["Send a message:", f"  {send}", "Read it:", f"  {read}", "Add an alias:", f"  {add}"]


def _production(made: Made) -> list[str]:
    settings = made.settings
    if not made.new:
        return [f"{settings.data_folder} is a data folder already; nothing was changed."]
    program, file = _program(), _short(settings.file)
    domain = settings.hostname.partition(".")[2] or settings.hostname
    return [
        f"{settings.hostname} is set up in {_short(settings.data_folder)}.",
        "",
        "1. DNS records, at whoever runs the zone:",
        f"     {settings.hostname}.  A and AAAA  the addresses of this machine, and PTR back to the name",
        f"     {domain}.  MX  10 {settings.hostname}.",
        "2. A domain, an address, its password:",
        f"     export {PREFIX}CONFIG={file}",
        f"     {program} domain add {domain}",
        f"     {program} alias add you@{domain}",
        f"     {program} alias password you@{domain}",
        "3. A real certificate in the place of the self-signed one:",
        f"     {_short(settings.certificate_file)} and {_short(settings.certificate_key_file)}",
        "4. Look whether all is well, and start:",
        f"     {program} check",
        f"     {_beside(program)} --nodaemon --pidfile= forwardemail --config {file}",
        "",
        f"Keep a copy of {_short(settings.server_key_file)} where the server cannot lose it: nothing opens the directory without it.",
    ]


def _secondary(made: Made) -> list[str]:
    settings = made.settings
    if not made.new:
        return [f"{settings.data_folder} is a data folder already; nothing was changed."]
    program, file = _program(), _short(settings.file)
    return [
        f"A secondary of {settings.primary} is set up in {_short(settings.data_folder)}.",
        "",
        "1. The link token of the primary (there: forwardemail link token):",
        f"     export {PREFIX}CONFIG={file}",
        f"     {program} link join",
        "2. The primary's certificate, unless this machine trusts its issuer: copy it here and name it with link_authority.",
        "3. Look whether all is well, and start:",
        f"     {program} check",
        f"     {_beside(program)} --nodaemon --pidfile= forwardemail --config {file}",
        "",
        "The server key of this box only protects what waits here while its primary is away.",
    ]


def _program() -> str:
    """How this program was called, in a form that can be pasted."""
    name = Path(sys.argv[0])
    return "forwardemail" if shutil.which(name.name) == str(name) or name.name != "forwardemail" else _short(name.absolute())


def _beside(program: str) -> str:
    """How twistd is called where ``program`` is called like this."""
    return program.removesuffix("forwardemail") + "twistd"


def _short(path: Path) -> str:
    """The path from here, when that is shorter."""
    relative = os.path.relpath(path)
    return shlex.quote(relative if len(relative) < len(str(path)) else str(path))
