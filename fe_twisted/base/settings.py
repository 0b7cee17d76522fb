"""Every setting, declared once: name, type, unit, default, limits and a sentence.

From the declaration in :class:`Settings` come the check of a file and the environment overrides (:mod:`fe_twisted.base.load`), the example
file in ``conf/`` and ``forwardemail config describe``.
"""

from __future__ import annotations

import dataclasses
import json
import os
import textwrap
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fe_twisted.base import faults

#: What the names of environment overrides start with.
PREFIX = "FORWARDEMAIL_"
#: Variables that start so and are not settings: where the file is, and a switch of the crash tests that works in development only.
OTHER_VARIABLES = frozenset({PREFIX + "CONFIG", faults.VARIABLE})

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known about one setting.

    :param type: ``str``, ``int``, ``bool`` or ``list`` (of strings).
    :param development: the default while ``development`` is true, or None when it is the same.
    :param unit: of a number: ``seconds``, ``octets``, …
    :param section: the heading it stands under in the example file.
    """

    name: str
    type: type
    default: Any
    text: str
    section: str
    development: Any = None
    unit: str = ""
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None

    def default_for(self, development: bool) -> Any:
        """The value when nobody gives one."""
        return self.development if development and self.development is not None else self.default


def _setting(default: Any, text: str, section: str = "", **more: Any) -> Any:
    """Declare one setting; the type is the annotation's."""
    metadata = {"default": default, "text": text, "section": section, **more}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def _port(default: int, what: str) -> Any:
    return _setting(default, f"Port for {what}; 0 switches it off. port_offset is added.", minimum=0, maximum=65535)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings as checked; immutable.

    ``file`` is where they came from, which relative paths start from; it is not a setting.
    """

    file: Path

    # A section's first setting names the section.
    hostname: str = _setting(
        "localhost",
        "The name of this server as other mail servers know it: in the greeting, in Received and in the MX record.",
        "The server",
    )
    data: str = _setting("", "The folder for all data; empty is the folder that this file is in.")
    development: bool = _setting(
        False, "Defaults for trying things out: loopback only, ports moved out of the way, passwords without TLS from loopback."
    )

    interfaces: list[str] = _setting(  # noqa: RUF009 - the call gives a field, like dataclasses.field itself
        ["0.0.0.0", "::"],
        "IP addresses to listen on. IPv6 ones are passed over on a machine without IPv6.",
        "Listening",
        development=["127.0.0.1", "::1"],
    )
    port_offset: int = _setting(0, "Added to every port.", development=2000, unit="ports", minimum=0, maximum=60000)
    mx_port: int = _port(25, "mail from other servers (MX, with STARTTLS)")
    imap_port: int = _port(143, "IMAP with STARTTLS")
    imaps_port: int = _port(993, "IMAP over TLS")

    role: str = _setting(
        "primary",
        "primary: the mailbox files are here. secondary: this box answers clients and other mail servers for primaries elsewhere.",
        "More processes, more boxes (docs/scaling.md)",
        choices=("primary", "secondary"),
    )
    workers: int = _setting(
        -1,
        "Processes that share the ports; -1 is one for each processor core, 0 is everything in one process.",
        unit="processes",
        minimum=-1,
        maximum=64,
    )
    location: str = _setting("local", "What the directory calls this primary; each alias has the location of the primary with its mailbox.")
    primary: str = _setting("", "Of a secondary with one primary: wss://host:port, the port being the primary's link_port.")
    primaries: list[str] = _setting(  # noqa: RUF009 - see interfaces
        [], "All other primaries where there are several: LOCATION=wss://host:port each."
    )
    link_port: int = _port(0, "secondaries and other primaries, over TLS 1.3; who connects needs the link secret")
    link_networks: list[str] = _setting(  # noqa: RUF009 - see interfaces
        ["127.0.0.0/8", "::1/128"], "Networks or addresses from which link_port is answered."
    )
    link_secret: str = _setting(
        "secrets/link.key", "The file with the link secret, made by `forwardemail link token`; relative to data; readable by nobody else."
    )
    link_authority: str = _setting(
        "", "PEM file of certificates to trust for the names of primaries, relative to data; empty is what this machine trusts."
    )
    mailbox_access: str = _setting(
        "auto",
        "How workers and secondaries read: direct (the file must be here), link, or auto, which is direct where the file is.",
        choices=("auto", "direct", "link"),
    )
    redis_url: str = _setting("", "Where several boxes share their limits: redis://host:6379/0; empty is no sharing between boxes.")

    tls_certificate: str = _setting(
        "tls/certificate.pem", "Certificate chain in PEM, the server's own first; relative to data. SIGHUP reads it again.", "TLS"
    )
    tls_key: str = _setting("tls/key.pem", "Private key of the certificate in PEM; relative to data; readable by nobody else.")
    tls_minimum: str = _setting("1.2", "The oldest TLS version that is spoken.", choices=("1.2", "1.3"))

    server_key: str = _setting(
        "secrets/server.key",
        "The file with the 32 octets that protect the directory; relative to data; readable by nobody else.",
        "Storage",
    )
    directory_url: str = _setting(
        "",
        "Where domains, aliases and key slots are: empty is an encrypted file in data, otherwise postgresql://user@host/database?passfile=/file.",
    )
    cipher: str = _setting(
        "chacha20", "Cipher of new mailbox files: chacha20 (ChaCha20-Poly1305) or aegis (AEGIS-256).", choices=("chacha20", "aegis")
    )
    storage_threads: int = _setting(8, "Threads that read and write files.", unit="threads", minimum=1, maximum=64)

    message_size_limit: int = _setting(
        # SQLite has 1,000,000,000 octets for one value, and a body is one.
        50 * MIB,
        "Longest message that is taken, by MX and by APPEND.",
        "Messages",
        unit="octets",
        minimum=65536,
        maximum=900 * MIB,
    )
    recipients_limit: int = _setting(
        # RFC 5321 section 4.5.3.1.8: at least 100.
        100,
        "Most recipients of one message.",
        unit="recipients",
        minimum=100,
        maximum=10000,
    )
    hop_limit: int = _setting(
        # RFC 5321 section 6.3: normally at least 100.
        100,
        "A message with more Received lines than this is looping and is refused.",
        unit="hops",
        minimum=25,
        maximum=1000,
    )
    disabled_action: str = _setting(
        "reject",
        "What `forwardemail alias disable` does unless told: reject (550), defer (421: try later) or discard (250, thrown away).",
        choices=("reject", "defer", "discard"),
    )

    mx_connections: int = _setting(
        1000, "Most connections to the MX port at once.", "Connections", unit="connections", minimum=1, maximum=100000
    )
    mx_connections_per_address: int = _setting(
        50, "… from one IPv4 address or one IPv6 /64 network.", development=1000, unit="connections", minimum=1, maximum=100000
    )
    mx_timeout_seconds: int = _setting(
        # RFC 5321 section 4.5.3.2.7: at least 5 minutes.
        300,
        "How long an MX client may be silent.",
        unit="seconds",
        minimum=5,
        maximum=3600,
    )
    mx_commands_per_connection: int = _setting(
        # A message to as many recipients as RFC 5321 section 4.5.3.1.8 asks for takes somewhat more than 100.
        1000,
        "Most commands that an MX client may send on one connection; then it is told 421 and may connect again.",
        unit="commands",
        minimum=150,
        maximum=1000000,
    )
    mx_errors_per_connection: int = _setting(
        20,
        "Refused commands (5xx) of an MX client on one connection after which it is told 421.",
        unit="errors",
        minimum=1,
        maximum=1000000,
    )
    mx_messages_per_connection: int = _setting(
        100,
        "Most messages that an MX client may begin on one connection; with the next it is told to connect again.",
        unit="messages",
        minimum=1,
        maximum=1000000,
    )
    imap_connections: int = _setting(10000, "Most connections to the IMAP ports at once.", unit="connections", minimum=1, maximum=1000000)
    imap_connections_per_address: int = _setting(
        100, "… from one IPv4 address or one IPv6 /64 network.", development=10000, unit="connections", minimum=1, maximum=1000000
    )
    imap_login_seconds: int = _setting(60, "How long an IMAP client may take to log in.", unit="seconds", minimum=5, maximum=3600)
    imap_timeout_seconds: int = _setting(
        # RFC 9051 section 5.4: at least 30 minutes.
        1800,
        "How long a logged in IMAP client may be silent.",
        unit="seconds",
        minimum=60,
        maximum=86400,
    )
    imap_compress: bool = _setting(
        # RFC 4978 section 8; messages of others and secrets of one's own in one compressed stream can be told from its length.
        False,
        "Offer IMAP clients to compress the connection: less to send, for 300 KiB of memory a connection.",
    )
    shutdown_seconds: int = _setting(
        10,
        "How long stopping may wait for sessions to end, and a worker that is being replaced for its clients to finish.",
        unit="seconds",
        minimum=1,
        maximum=300,
    )

    plaintext_login_from_loopback: bool = _setting(False, "Let clients on this machine log in without TLS.", "Logging in", development=True)
    session_grace_seconds: int = _setting(
        60, "How long a mailbox stays open after its last session.", unit="seconds", minimum=0, maximum=3600
    )
    login_failures_per_network: int = _setting(
        30,
        "Wrong passwords from one IPv4 address or one IPv6 /64 network, within login_failures_seconds, before it is turned away.",
        unit="failures",
        minimum=1,
        maximum=100000,
    )
    login_failures_per_alias: int = _setting(
        60,
        "… for one alias from networks that never logged in to it.",
        unit="failures",
        minimum=1,
        maximum=100000,
    )
    login_failures_seconds: int = _setting(900, "The time in which wrong passwords are counted.", unit="seconds", minimum=1, maximum=86400)

    log_format: str = _setting("text", "One line an event: readable, or a JSON object.", "Logging", choices=("text", "json"))
    log_level: str = _setting("info", "The least important events that are logged.", choices=("debug", "info", "warn", "error"))
    log_addresses: str = _setting(
        "hashed",
        "Mail addresses in the log: full, hashed (the same address gives the same word until the next start) or none.",
        development="full",
        choices=("full", "hashed", "none"),
    )

    @property
    def data_folder(self) -> Path:
        """The folder for all data, absolute."""
        return self.file.parent / self.data

    @property
    def server_key_file(self) -> Path:
        """The server key."""
        return self.data_folder / self.server_key

    @property
    def certificate_file(self) -> Path:
        """The TLS certificate chain."""
        return self.data_folder / self.tls_certificate

    @property
    def certificate_key_file(self) -> Path:
        """The private key of the TLS certificate."""
        return self.data_folder / self.tls_key

    @property
    def directory_file(self) -> Path:
        """The embedded directory; not used with ``directory_url``."""
        return self.data_folder / "directory.sqlite"

    @property
    def mailbox_folder(self) -> Path:
        """Mailbox files and the temporary mailboxes beside them."""
        return self.data_folder / "mailboxes"

    @property
    def queue_folder(self) -> Path:
        """Mail that waits here for a primary, sealed, with a folder for each process."""
        return self.data_folder / "queue"

    @property
    def link_socket(self) -> Path:
        """The unix socket of a primary, for its workers and the command line; of a secondary, for the command line."""
        return self.data_folder / "link.sock"

    @property
    def link_secret_file(self) -> Path:
        """The link secret."""
        return self.data_folder / self.link_secret

    @property
    def link_authority_file(self) -> Path | None:
        """Certificates to trust for primaries."""
        return self.data_folder / self.link_authority if self.link_authority else None

    def processes(self) -> int:
        """The worker processes: 0 is everything in one; on one core, more than one would only cost."""
        cores = len(os.sched_getaffinity(0))
        return self.workers if self.workers >= 0 else (cores if cores > 1 else 0)

    def elsewhere(self) -> dict[str, str]:
        """The URL of each primary that is not this process's box, by location; of a secondary's only primary, by an empty one."""
        found = dict(each.split("=", 1) for each in self.primaries)
        return {"": self.primary} if self.primary else found

    def ports(self) -> dict[str, int]:
        """The ports that are listened on, offset included, by the name of the door: ``mx``, ``imap``, ``imaps``, ``link``."""
        doors = {"mx": self.mx_port, "imap": self.imap_port, "imaps": self.imaps_port, "link": self.link_port}
        return {door: port + self.port_offset for door, port in doors.items() if port}


def _declared() -> tuple[Setting, ...]:
    types = typing.get_type_hints(Settings)
    found = []
    section = ""
    for each in dataclasses.fields(Settings):
        if each.metadata:
            metadata = dict(each.metadata)
            section = metadata.pop("section") or section
            kind = types[each.name]
            found.append(Setting(name=each.name, type=typing.get_origin(kind) or kind, section=section, **metadata))
    return tuple(found)


#: All settings in the order of the example file.
SETTINGS: tuple[Setting, ...] = _declared()
BY_NAME: dict[str, Setting] = {setting.name: setting for setting in SETTINGS}


def show(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool | int | float | str | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def describe() -> str:
    """The example file: every setting with its sentence, limits and default, commented out."""
    out = [
        "# Settings of forwardemail. Printed by `forwardemail config describe`.",
        "#",
        "# Every line that starts with #name shows the default; take the # away to change it. An environment variable overrides the file:",
        f"# {PREFIX}LOG_LEVEL=debug for log_level.",
    ]
    section = ""
    for setting in SETTINGS:
        if setting.section != section:
            section = setting.section
            out += ["", f"# -- {section} " + "-" * (76 - len(section))]
        out.append("")
        out += textwrap.wrap(setting.text, 116, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
        facts = _facts(setting)
        if facts:
            out.append(f"# ({facts})")
        out.append(f"#{setting.name} = {show(setting.default)}")
    return "\n".join(out) + "\n"


def _facts(setting: Setting) -> str:
    facts = []
    if setting.choices:
        facts.append("one of: " + ", ".join(setting.choices))
    if setting.minimum is not None and setting.maximum is not None and setting.minimum != setting.maximum:
        facts.append(f"{setting.minimum} to {setting.maximum} {setting.unit}".rstrip())
    if setting.development is not None:
        facts.append(f"in development: {show(setting.development)}")
    return "; ".join(facts)
