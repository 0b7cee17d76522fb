"""A new data folder: settings file, server key, certificate, directory and, to try things out, an example domain."""

from __future__ import annotations

import datetime
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fe_twisted.app.certificates import create_certificate
from fe_twisted.app.store import opened
from fe_twisted.base.errors import BadSettings, Refused
from fe_twisted.base.load import load
from fe_twisted.base.settings import BY_NAME, Settings
from fe_twisted.services.accounts.admin import NewPassword
from fe_twisted.storage.vault.secret import create_server_key

CONFIG = "forwardemail.toml"
#: In the folder while it is being made: what an interrupted start left may be removed, because nothing else was there.
UNFINISHED = ".init-unfinished"

EXAMPLE_DOMAIN = "example.com"
EXAMPLE_ALIASES = ("hello@example.com", "world@example.com")

_FILE = """\
# Settings of forwardemail. All of them, with their defaults: forwardemail config describe

hostname = "{hostname}"
"""
_DEVELOPMENT = """\

# Loopback only, ports moved out of the way, passwords without TLS from loopback.
development = true
port_offset = {port_offset}
"""
_SECONDARY = """\

# The mailboxes are on another box (docs/scaling.md).
role = "secondary"
primary = "{primary}"
"""


@dataclass(frozen=True, slots=True)
class Made:
    """What :func:`create` did.

    :param new: False when the folder was there already and nothing was changed.
    :param passwords: of the example aliases.
    """

    settings: Settings
    new: bool
    passwords: tuple[NewPassword, ...] = field(default=(), repr=False)


def create(
    data: Path,
    *,
    hostname: str | None,
    development: bool,
    port_offset: int | None,
    example: bool,
    now: datetime.datetime,
    directory_url: str | None = None,
    primary: str | None = None,
) -> Made:
    """Make a data folder, or find that it is there already and leave it as it is.

    Nothing is left behind when it fails.

    :param hostname: None for this machine's own name (``localhost`` in development).
    :param port_offset: None for the default, which is 2000 in development and 0 otherwise.
    :param example: add the domain and the aliases to try things out with.
    :param directory_url: where the directory is, if not in a file; a secondary needs it.
    :param primary: for a secondary, the URL of its primary's link; None for a primary.
    :raises Refused: something that is not ours is in the folder.
    :raises BadSettings: a host name, offset or URL that cannot be, or a folder that cannot be made.
    :raises Later: the directory's database cannot be reached.
    """
    data = data.absolute()
    if (data / CONFIG).exists() and not (data / UNFINISHED).exists():
        return Made(load(data / CONFIG, {}), new=False)
    existed = data.exists()
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        _clear_unfinished(data)
        if any(data.iterdir()):
            raise Refused(f"{data} is not empty and not a data folder of this program; name another folder, or empty it")
        (data / UNFINISHED).touch(mode=0o600)
    except OSError as error:
        raise BadSettings(f"{data} cannot be used as data folder: {error.strerror}") from error
    try:
        text = _text(hostname or _own_name(development), development, port_offset) + _elsewhere(directory_url, primary)
        made = _fill(data, text, example, now)
        _sync(data)
        (data / UNFINISHED).unlink()
        _sync(data)
    except BaseException:
        _empty(data)
        if not existed:
            data.rmdir()
        raise
    return made


def _fill(data: Path, text: str, example: bool, now: datetime.datetime) -> Made:
    config = data / CONFIG
    config.touch(mode=0o600)
    config.write_text(text, encoding="utf-8")
    settings = load(config, {})
    settings.server_key_file.parent.mkdir(mode=0o700)
    create_server_key(settings.server_key_file)
    create_certificate(settings.certificate_file, settings.certificate_key_file, settings.hostname, now)
    passwords: list[NewPassword] = []
    if settings.role == "secondary":
        # The directory is its primary's to make, and the database need not be in reach yet.
        return Made(settings, new=True)
    with opened(settings, create=True) as store:
        if example:
            store.accounts.add_domain(EXAMPLE_DOMAIN)
            for address in EXAMPLE_ALIASES:
                store.accounts.add_alias(address)
                passwords.append(store.accounts.new_password(address))
    return Made(settings, new=True, passwords=tuple(passwords))


def _text(hostname: str, development: bool, port_offset: int | None) -> str:
    text = _FILE.format(hostname=_quoted(hostname))
    if development:
        return text + _DEVELOPMENT.format(port_offset=BY_NAME["port_offset"].development if port_offset is None else port_offset)
    return text if port_offset is None else f"{text}port_offset = {port_offset}\n"


def _elsewhere(directory_url: str | None, primary: str | None) -> str:
    """What is not in this data folder."""
    text = "" if primary is None else _SECONDARY.format(primary=_quoted(primary))
    return text if directory_url is None else f'{text}directory_url = "{_quoted(directory_url)}"\n'


def _quoted(text: str) -> str:
    """The inside of a TOML string; whether it can be is checked when the file is read."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _own_name(development: bool, getfqdn: Callable[[], str] = socket.getfqdn) -> str:
    """:raises BadSettings: the machine does not know a name that others could use."""
    if development:
        return "localhost"
    name = getfqdn()
    if "." not in name or name.startswith("localhost"):
        raise BadSettings("this machine does not know its full host name; give it with --hostname mail.example.org")
    return name


def _clear_unfinished(data: Path) -> None:
    if (data / UNFINISHED).exists():
        _empty(data)


def _empty(data: Path) -> None:
    """Remove what is in the folder, the mark last."""
    for entry in sorted(data.iterdir(), key=lambda entry: entry.name == UNFINISHED):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
