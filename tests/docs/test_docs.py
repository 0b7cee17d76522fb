"""The documentation says what is there: files, tests, settings, commands, capabilities, log events.

Written so that it fails when the program changes and the text does not.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from fe_twisted.app.cli import cli
from fe_twisted.base import faults
from fe_twisted.base.load import load
from fe_twisted.base.settings import BY_NAME, SETTINGS
from tests.servers.imap.house import House
from tests.servers.imap.tls import server_tls
from tests.servers.smtp.world import World

ROOT = Path(__file__).resolve().parents[2]
PAGES = {page.name: page.read_text(encoding="utf-8") for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
HOWTO, FLOW, SECURITY, RFCS = (PAGES[name] for name in ("howto.md", "flow.md", "security.md", "rfcs.md"))

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
#: What stands in backticks and begins like this is a path of the repository.
_PATH = re.compile(
    r"(?:fe_twisted|tests|docs|conf|bench|twisted|\.ci)/[\w./-]+|Makefile|[\w-]+\.lock|[A-Z]+\.md|setup\.cfg|pyproject\.toml"
)
_EVENT_CALL = re.compile(r'\blog\.(?:event|debug|warning|failure)\(\s*f?"([^"]+)"')
_DOOR_CALL = re.compile(r'\bself\.log\(\s*"(\w+)"')
#: Names of events in the text; what else has a dot (files, settings of other programs) does not begin like this.
_EVENT = re.compile(r"(?:mx|imap|receive|deliver|merge|spool|mailbox|login|server|tls|accounts)\.[a-z_]+")


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", text)


def code(text: str) -> list[str]:
    """What stands in backticks in a page's running text."""
    return _CODE.findall(prose(text))


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Fenced blocks of one language: the page, and the text."""
    for name, text in PAGES.items():
        for found in _FENCE.finditer(text):
            if found[1] == language:
                yield name, found[2]


# -- files, links and tests ---------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_named_exists(page: str) -> None:
    named = [each.partition("::")[0] for each in code(PAGES[page]) if _PATH.fullmatch(each.partition("::")[0])]
    missing = sorted({name for name in named if not (ROOT / name).exists()})
    assert missing == []


def test_flow_and_standards_name_files() -> None:
    """The pattern above still finds them."""
    assert len([each for each in code(FLOW) if _PATH.fullmatch(each)]) > 30
    assert len([each for each in code(RFCS) if _PATH.fullmatch(each)]) > 30


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_is_named_exists(page: str) -> None:
    missing = []
    for each in code(PAGES[page]):
        file, marks, name = each.partition("::")
        if marks and not re.search(rf"^(?:async )?def {re.escape(name)}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE):
            missing.append(each)
    assert missing == []


def test_the_threat_model_names_many_tests() -> None:
    assert len({each for each in code(SECURITY) if "::" in each}) > 40


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page: str) -> None:
    """Those inside the repository, with their anchors."""
    here = ROOT if page in ("README.md", "CHANGELOG.md") else ROOT / "docs"
    broken = []
    for target in _LINK.findall(prose(PAGES[page])):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = here / path if path else here / page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def anchors(file: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = _HEADING.findall(prose(file.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# -- settings -----------------------------------------------------------------------------------------


def test_every_setting_is_explained_in_the_example_file() -> None:
    """Its line, and right above it a comment that is more than its unit."""
    example = (ROOT / "conf" / "forwardemail.toml").read_text(encoding="utf-8")
    for setting in SETTINGS:
        found = re.search(rf"((?:^# .*\n)+)#{setting.name} = ", example, re.MULTILINE)
        assert found is not None, setting.name
        assert re.search(r"\w+ \w+ \w+", found[1]), setting.name


def test_toml_in_the_pages_is_a_settings_file(tmp_path: Path) -> None:
    seen = 0
    for page, text in blocks("toml"):
        file = tmp_path / "forwardemail.toml"
        file.write_text(text, encoding="utf-8")
        load(file, {})
        assert tomllib.loads(text), page
        seen += 1
    assert seen


def test_settings_in_the_pages_exist() -> None:
    """Every ``name = value`` in backticks."""
    for page, text in PAGES.items():
        for each in code(text):
            found = re.fullmatch(r"([a-z][a-z_]+) = .+", each)
            assert found is None or found[1] in BY_NAME, f"{page}: {each}"


# -- commands -----------------------------------------------------------------------------------------


def verbs(command: click.Command = cli, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with the words that call it."""
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from verbs(each, (*words, name))
    else:
        yield words, command


VERBS = dict(verbs())


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_every_verb_is_in_the_readme_or_the_how_to(words: tuple[str, ...]) -> None:
    assert f"forwardemail {' '.join(words)}" in PAGES["README.md"] + HOWTO


def calls() -> Iterator[tuple[str, str]]:
    """Every call of the command line in a block to paste or in backticks: the page, and the call."""
    for page, text in blocks("sh"):
        for line in re.sub(r"<<'END'\n.*?^END$", "", text, flags=re.MULTILINE | re.DOTALL).splitlines():
            found = re.match(r"(?:\S*/)?forwardemail( .*)", line)
            if found and "twistd" not in line:
                yield page, found[1]
    for page, text in PAGES.items():
        for each in code(text):
            if each.startswith("forwardemail "):
                yield page, each.removeprefix("forwardemail")


def test_every_command_in_the_pages_can_be_called() -> None:
    """The verb exists, and so do its options."""
    seen = 0
    for page, call in calls():
        words = shlex.split(call, comments=True)
        found = next((verb for verb in VERBS if tuple(words[: len(verb)]) == verb), None)
        assert found is not None, f"{page}: forwardemail{call}"
        known = {option for parameter in VERBS[found].params for option in parameter.opts}
        for option in (word for word in words if word.startswith("--")):
            assert option in known, f"{page}: forwardemail{call}"
        seen += 1
    assert seen > 20


# -- what is announced --------------------------------------------------------------------------------


def rows(page: str) -> dict[str, list[str]]:
    """The cells of every table row whose first cell is one name in backticks."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| `")]
    return {found[1]: row for row in cells if (found := re.fullmatch(r"`([^`]+)`", row[0]))}


def announced(tmp_path: Path) -> dict[str, set[str]]:
    """IMAP capabilities before and after login; values that are numbers are cut off."""
    house = House(tmp_path, tls=server_tls(tmp_path))
    greetings = [house.connect(peer="192.0.2.1").take(), house.connect(peer="192.0.2.1", secure=True).take()]
    found = {
        "before": {name for line in greetings for name in line.decode().partition("CAPABILITY ")[2].partition("]")[0].split()},
        "after": set(house.login().ask("CAPABILITY")[0].split()[2:]),
    }
    house.close()
    return {when: {re.sub(r"=\d+$", "", name) for name in names} for when, names in found.items()}


def test_every_capability_has_its_row(tmp_path: Path) -> None:
    """With «before», «after» or «both» as the server has it, a standard, and a test."""
    found, table = announced(tmp_path), rows(RFCS.partition("## SMTP")[0])
    assert {"IMAP4rev1", "STARTTLS", "AUTH=PLAIN", "LOGINDISABLED"} <= found["before"]
    names, both = found["before"] | found["after"], found["before"] & found["after"]
    expected = {name: "both" if name in both else "before" if name in found["before"] else "after" for name in names}
    assert {name: row[2] for name, row in table.items() if name in expected} == expected
    for name, row in table.items():
        assert re.search(r"\d{4}|draft|none", row[1]) and "`tests/" in row[4], name


def test_no_row_promises_what_is_nowhere(tmp_path: Path) -> None:
    """What is not announced now is one that a setting switches on, so the server at least knows its name."""
    found, table = announced(tmp_path), rows(RFCS.partition("## SMTP")[0])
    known = (ROOT / "fe_twisted" / "servers" / "imap" / "capability.py").read_text(encoding="utf-8")
    assert [name for name in table if name not in found["before"] | found["after"] and f'"{name}"' not in known] == []


def test_every_ehlo_keyword_has_its_row(tmp_path: Path) -> None:
    reply = World(tls=server_tls(tmp_path)).connect().send(b"EHLO client.example.net\r\n")
    keywords = {line[4:].split()[0] for line in reply.splitlines() if line.startswith("250")} - {"mx.example.com"}
    assert {"PIPELINING", "STARTTLS"} <= keywords
    table = rows(RFCS.partition("## SMTP")[2].partition("\n## ")[0])
    assert set(table) == keywords
    for name, row in table.items():
        assert re.search(r"\d{4}", row[1]) and "`tests/" in row[3], name


# -- events and crash points --------------------------------------------------------------------------


def events() -> set[str]:
    """The names of all log events in the sources; an SMTP door's own begin with its name, which is ``mx``."""
    found: set[str] = set()
    for file in (ROOT / "fe_twisted").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        found |= {re.sub(r"^\{[^}]*\}", "mx", name) for name in _EVENT_CALL.findall(text)}
        found |= {f"mx.{name}" for name in _DOOR_CALL.findall(text)}
    # The one event whose level depends on how the session went.
    if "{self._shared.door}.closed" in (ROOT / "fe_twisted/servers/smtp/session.py").read_text(encoding="utf-8"):
        found.add("mx.closed")
    return found


@pytest.mark.parametrize("page", ["howto.md", "flow.md"])
def test_every_event_that_is_named_is_logged(page: str) -> None:
    named = {each.split()[0] for each in code(PAGES[page]) if _EVENT.fullmatch(each.split()[0])} - set(faults.POINTS)
    assert len(named) > 8
    assert sorted(named - events()) == []


def test_every_crash_point_is_in_the_table() -> None:
    table = FLOW.partition("## Where a crash leaves it")[2]
    named = [point for point in code(table) if re.fullmatch(r"(?:deliver|spool|writer|merge|remote|host|move|arrive)\.[a-z_]+", point)]
    assert sorted(named) == sorted(faults.POINTS)
