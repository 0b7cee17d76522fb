"""Reading a settings file: flat TOML, ``name = value``, no tables.  A value is taken from, in this order,

1. the environment: ``FORWARDEMAIL_`` and the name in capitals (``FORWARDEMAIL_WORKERS=0`` for ``workers``);
2. the file;
3. the default, which for some settings is another one while ``development = true``.

All problems are collected before anything is refused, each with its line and what to do about it.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fe_twisted.base.errors import BadSettings
from fe_twisted.base.settings import BY_NAME, OTHER_VARIABLES, PREFIX, SETTINGS, Setting, Settings, show

_HOSTNAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.IGNORECASE)
_LOCATION = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_TOML_PLACE = re.compile(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)\Z", re.DOTALL)

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
            return f"{show(value)} is not a whole number{unit}; write it without quotes, for example {setting.default}"
        if setting.minimum is not None and value < setting.minimum:
            return f"{value} is too small; the smallest is {setting.minimum}"
        if setting.maximum is not None and value > setting.maximum:
            return f"{value} is too large; the largest is {setting.maximum}"
        return ""
    if setting.type is bool:
        return "" if type(value) is bool else f"{show(value)} is neither true nor false; write true or false, without quotes"
    if setting.type is list:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            return f"{show(value)} is not a list of texts; write for example {show(setting.default)}"
        return _wrong_items(setting, value)
    if not isinstance(value, str):
        return f"{show(value)} is not a text; put it in quotes"
    if setting.choices and value not in setting.choices:
        return f"{show(value)} is none of the choices; write one of: {', '.join(setting.choices)}"
    return _wrong_text(setting.name, value)


def wrong_location_name(value: str) -> str:
    """What is wrong with the name of a location; empty when nothing is."""
    if _LOCATION.fullmatch(value):
        return ""
    return f"{show(value)} is not a location; write up to 32 small letters, digits and hyphens, such as paris-1"


def _wrong_text(name: str, value: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        return "control characters are not allowed in it; take them out"
    if name == "hostname" and not _HOSTNAME.fullmatch(value):
        return f"{show(value)} is not a host name; write a name such as mail.example.org"
    if name in {"tls_certificate", "tls_key", "server_key", "link_secret"} and not value:
        return "a file name is needed; leave the line out for the default"
    if name == "directory_url" and value:
        return _wrong_url(value)
    if name == "location":
        return wrong_location_name(value)
    if name == "primary" and value:
        return _wrong_primary(value)
    if name == "redis_url" and value:
        return _wrong_redis(value)
    return ""


def _wrong_primary(value: str) -> str:
    """What is wrong with a primary's URL."""
    try:
        url = urlsplit(value)
        right = url.scheme == "wss" and bool(url.hostname) and url.port is not None
    except ValueError:
        right = False
    if not right or url.username is not None or url.path not in ("", "/") or url.query or url.fragment:
        return f"{show(value)} is not the URL of a primary; write wss://host:port"
    return ""


def _wrong_redis(value: str) -> str:
    """A Redis URL; its text is not repeated in the problem, as it may hold a password."""
    try:
        url = urlsplit(value)
        right = url.scheme in {"redis", "rediss"} and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        right = False
    return "" if right else "this is not the URL of a Redis server; write redis://host:6379/0"


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
    if not value and setting.default:
        return f"the list is empty; write for example {show(setting.default)}"
    wrong = {"interfaces": _wrong_address, "link_networks": _wrong_network, "primaries": _wrong_location}[setting.name]
    for item in value:
        problem = wrong(item)
        if problem:
            return problem
    if len({item.split("=", 1)[0] for item in value}) != len(value):
        return f"{'a location' if setting.name == 'primaries' else 'an address'} is there twice; take one out"
    return ""


def _wrong_address(item: str) -> str:
    try:
        ip_address(item)
    except ValueError:
        return f"{show(item)} is not an IP address; write addresses of this machine, for example {show(BY_NAME['interfaces'].default)}"
    return ""


def _wrong_network(item: str) -> str:
    try:
        ip_network(item)
    except ValueError:
        return f"{show(item)} is not a network; write addresses or networks, for example {show(['192.0.2.7', '2001:db8::/64'])}"
    return ""


def _wrong_location(item: str) -> str:
    location, equals, url = item.partition("=")
    if not equals or not _LOCATION.fullmatch(location):
        return f"{show(item)} has no location; write LOCATION=wss://host:port"
    return _wrong_primary(url)


def _check_together(values: Mapping[str, Any], places: Mapping[str, str], problems: list[Problem]) -> None:
    """Rules about more than one setting."""
    doors = [name for name in ("mx_port", "imap_port", "imaps_port", "link_port") if values[name]]
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
    _check_roles(values, places, problems)


def _check_roles(values: Mapping[str, Any], places: Mapping[str, str], problems: list[Problem]) -> None:
    """Who is a primary, and who needs one."""

    def problem(name: str, text: str) -> None:
        problems.append((places.get(name, places.get("role", "file")), f"{name}: {text}"))

    if values["role"] == "secondary":
        if not values["primary"] and not values["primaries"]:
            problem("role", 'a secondary needs a primary; add the line: primary = "wss://host:port"')
        if not values["directory_url"]:
            problem("role", "a secondary has no directory of its own; set directory_url to the PostgreSQL database of its primary")
        if values["link_port"]:
            problem("link_port", "nobody connects to a secondary; leave the line out")
    elif values["primary"]:
        problem("primary", 'it is for a secondary; set role = "secondary", or name other primaries in primaries')
    if values["primary"] and values["primaries"]:
        problem("primaries", "there is also the setting primary; keep the one or the other")
    if values["role"] == "primary" and any(item.startswith(values["location"] + "=") for item in values["primaries"]):
        problem("primaries", f"{values['location']} is this primary itself; name only the others")


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
