"""Every setting, declared once: name, type, unit, default, limits and a sentence.

From the declaration in :class:`Settings` come the check of a file, the environment overrides, the example file in ``conf/`` and
``forwardemail config describe``.  A file is flat TOML: ``name = value``, no tables.  A value is taken from, in this order,

1. the environment: ``FORWARDEMAIL_`` and the name in capitals (``FORWARDEMAIL_WORKERS=0`` for ``workers``);
2. the file;
3. the default, which for some settings is another one while ``development = true``.

All problems are collected before anything is refused, each with its line and what to do about it.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import textwrap
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fe_twisted.base import faults
from fe_twisted.base.errors import BadSettings

#: What the names of environment overrides start with.
PREFIX = "FORWARDEMAIL_"
#: Variables that start so and are not settings: where the file is, and a switch of the crash tests that works in development only.
OTHER_VARIABLES = frozenset({PREFIX + "CONFIG", faults.VARIABLE})

MIB = 1024 * 1024
_HOSTNAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.IGNORECASE)
_TOML_PLACE = re.compile(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)\Z", re.DOTALL)


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
    workers: int = _setting(
        0, "Worker processes beside the first; 0 is everything in one process, which is all that this version has.", minimum=0, maximum=0
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
        50 * MIB, "Longest message that is taken, by MX and by APPEND.", "Messages", unit="octets", minimum=65536, maximum=1024 * MIB
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
    shutdown_seconds: int = _setting(10, "How long stopping may wait for sessions to end.", unit="seconds", minimum=1, maximum=300)

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

    def ports(self) -> dict[str, int]:
        """The ports that are listened on, offset included, by the name of the door: ``mx``, ``imap``, ``imaps``."""
        doors = {"mx": self.mx_port, "imap": self.imap_port, "imaps": self.imaps_port}
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

Problem = tuple[str, str]
"""Where (``line 3`` or the name of an environment variable), and what is wrong with its remedy."""


def load(file: str | Path, environment: Mapping[str, str]) -> Settings:
    """Read, check and complete the settings.

    :param environment: for overrides; ``os.environ`` in the program.
    :raises BadSettings: its text lists every problem, one a line.
    """
    path = Path(file).absolute()
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise BadSettings(f"{path} cannot be read: {error.strerror}; make one with: forwardemail init --data {path.parent}") from error
    except UnicodeDecodeError as error:
        raise BadSettings(f"{path} cannot be used: it is not UTF-8 text (octet {error.start})") from error
    problems: list[Problem] = []
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    _take_file(text, values, places, problems)
    _take_environment(environment, values, places, problems)
    development = values.get("development") is True
    complete = {s.name: values.get(s.name, s.default_for(development)) for s in SETTINGS}
    _check_together(complete, places, problems)
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = [f"{path} cannot be used ({count}):"]
        lines += [f"  {where}: {what}" for where, what in problems]
        raise BadSettings("\n".join(lines))
    return Settings(file=path, **complete)


def _take_file(text: str, values: dict[str, Any], places: dict[str, str], problems: list[Problem]) -> None:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _TOML_PLACE.match(str(error))
        what, line = (found[1], found[2]) if found else (str(error), None)
        where = f"line {line}" if line else f"line {len(text.splitlines()) or 1}"
        problems.append((where, f"this is not TOML: {what}; a line is: name = value, and text stands in quotes"))
        return
    lines = _line_numbers(text)
    for name, value in sorted(document.items(), key=lambda item: lines.get(item[0], 0)):
        where = f"line {lines[name]}" if name in lines else "file"
        if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict)):
            problems.append((where, f"{name}: tables are not used here; write the settings as plain lines: name = value"))
            continue
        setting = BY_NAME.get(name)
        if setting is None:
            problems.append((where, f"{name}: no such setting; {_nearest(name)}"))
            continue
        places[name] = where
        problem = _wrong(setting, value)
        if problem:
            problems.append((where, f"{name}: {problem}"))
        else:
            values[name] = value


def _take_environment(environment: Mapping[str, str], values: dict[str, Any], places: dict[str, str], problems: list[Problem]) -> None:
    for variable in sorted(environment):
        if not variable.startswith(PREFIX) or variable in OTHER_VARIABLES:
            continue
        name = variable.removeprefix(PREFIX).lower()
        where = f"environment {variable}"
        setting = BY_NAME.get(name)
        if setting is None or variable != PREFIX + name.upper():
            near = difflib.get_close_matches(name, BY_NAME, n=1)
            remedy = f"did you mean {PREFIX}{near[0].upper()}?" if near else "unset it"
            problems.append((where, f"no such setting; {remedy}"))
            continue
        value = _parse(setting, environment[variable])
        problem = _wrong(setting, value)
        if problem:
            problems.append((where, problem))
        else:
            values[name] = value
            places[name] = where


def _parse(setting: Setting, text: str) -> Any:
    """An environment variable's text as the setting's type, or unchanged when it is not of that type."""
    if setting.type is int:
        return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else text
    if setting.type is bool:
        return {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}.get(
            text.lower(), text
        )
    if setting.type is list:
        return [item.strip() for item in text.split(",") if item.strip()]
    return text


def _wrong(setting: Setting, value: Any) -> str:
    """What is wrong with a value and what to write instead; an empty string when it is right."""
    if setting.type is int:
        if type(value) is not int:
            unit = f" ({setting.unit})" if setting.unit else ""
            return f"{_show(value)} is not a whole number{unit}; write it without quotes, for example {setting.default}"
        if setting.minimum is not None and value < setting.minimum:
            return f"{value} is too small; the smallest is {setting.minimum}"
        if setting.maximum is not None and value > setting.maximum:
            return f"{value} is too large; the largest is {setting.maximum}"
        return ""
    if setting.type is bool:
        return "" if type(value) is bool else f"{_show(value)} is neither true nor false; write true or false, without quotes"
    if setting.type is list:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            return f"{_show(value)} is not a list of texts; write for example {_show(setting.default)}"
        return _wrong_items(setting, value)
    if not isinstance(value, str):
        return f"{_show(value)} is not a text; put it in quotes"
    if setting.choices and value not in setting.choices:
        return f"{_show(value)} is none of the choices; write one of: {', '.join(setting.choices)}"
    return _wrong_text(setting.name, value)


def _wrong_text(name: str, value: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        return "control characters are not allowed in it; take them out"
    if name == "hostname" and not _HOSTNAME.fullmatch(value):
        return f"{_show(value)} is not a host name; write a name such as mail.example.org"
    if name in {"tls_certificate", "tls_key", "server_key"} and not value:
        return "a file name is needed; leave the line out for the default"
    if name == "directory_url" and value:
        return _wrong_url(value)
    return ""


def _wrong_url(value: str) -> str:
    """A directory URL; its text is not repeated in the problem, as it may hold a password."""
    if not value.startswith(("postgresql://", "postgresql+psycopg://")):
        return "this is not a PostgreSQL URL; write postgresql://user@host/database, or leave it empty for the embedded directory"
    try:
        url = urlsplit(value)
        password = url.password is not None or "password" in parse_qs(url.query)
    except ValueError:
        return "this is not a URL; write postgresql://user@host/database"
    if password:
        return "a password does not belong in the settings; put it into a file of mode 0600 and add ?passfile=/path/of/the/file"
    return ""


def _wrong_items(setting: Setting, value: list[str]) -> str:
    if not value:
        return f"the list is empty; write for example {_show(setting.default)}"
    for item in value:
        try:
            ip_address(item)
        except ValueError:
            return f"{_show(item)} is not an IP address; write addresses of this machine, for example {_show(setting.default)}"
    if len(set(value)) != len(value):
        return "an address is there twice; take one out"
    return ""


def _check_together(values: Mapping[str, Any], places: Mapping[str, str], problems: list[Problem]) -> None:
    """Rules about more than one setting."""
    doors = [name for name in ("mx_port", "imap_port", "imaps_port") if values[name]]
    taken: dict[int, str] = {}
    for name in doors:
        port = values[name] + values["port_offset"]
        if port > 65535:
            where = places.get(name) or places.get("port_offset", "default")
            problems.append((where, f"{name}: {values[name]} plus port_offset {values['port_offset']} is above 65535; lower one of them"))
        elif port in taken:
            where = places.get(name) or places.get(taken[port], "default")
            problems.append((where, f"{name}: {taken[port]} has the same port {values[name]}; give it another, or 0 to switch it off"))
        else:
            taken[port] = name
    if not doors:
        problems.append((places.get("mx_port", "file"), "mx_port: every port is 0, so there is nothing to do; switch one on"))
    if ("tls_certificate" in places) != ("tls_key" in places):
        given, missing = ("tls_certificate", "tls_key") if "tls_certificate" in places else ("tls_key", "tls_certificate")
        problems.append((places[given], f"{given}: a certificate and its key belong together; set {missing} too"))


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, BY_NAME, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else "see them all with: forwardemail config describe"


def _line_numbers(text: str) -> dict[str, int]:
    """Where each top-level name stands.  :mod:`tomllib` does not tell; the text is known to be valid TOML."""
    found: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        match = re.match(r"""\s*\[{0,2}\s*["']?([A-Za-z0-9_-]+)["']?\s*[.\]=]""", line)
        if match:
            found.setdefault(match[1], number)
    return found


def _show(value: Any) -> str:
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
        out.append(f"#{setting.name} = {_show(setting.default)}")
    return "\n".join(out) + "\n"


def _facts(setting: Setting) -> str:
    facts = []
    if setting.choices:
        facts.append("one of: " + ", ".join(setting.choices))
    if setting.minimum is not None and setting.maximum is not None and setting.minimum != setting.maximum:
        facts.append(f"{setting.minimum} to {setting.maximum} {setting.unit}".rstrip())
    if setting.development is not None:
        facts.append(f"in development: {_show(setting.development)}")
    return "; ".join(facts)
