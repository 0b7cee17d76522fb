"""``forwardemail status``: what runs, on this box and linked to it, and how it goes."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click

from fe_twisted.app.ask import ask
from fe_twisted.app.cli.terminal import table, terminal, verb
from fe_twisted.app.waiting import Sum, look, total
from fe_twisted.base.errors import PrimaryAway
from fe_twisted.protocols.cluster.values import BadValue
from fe_twisted.services.cluster.status import ASK, State, state_of
from fe_twisted.storage.vault.secret import load_server_key

#: Seconds that the server may take to answer.
TIMEOUT = 10.0


@click.command()
@click.option("--full", is_flag=True, help="Also count the messages that wait, which opens each of their files.")
@verb
def status(full: bool) -> None:
    """Show what runs on this box and what is linked to it: roles, versions, sessions, open mailboxes, waiting mail, links."""
    out = terminal()
    settings = out.settings()
    try:
        state = state_of(ask(settings, ASK, [], timeout=TIMEOUT))
    except BadValue as error:
        raise PrimaryAway("the server is of another version than this command line; start it again", reason=str(error)) from error
    said = facts(state)
    waiting: Sum | None = None
    if full:
        waiting = total(look(settings, load_server_key(settings.server_key_file, credentials=os.environ.get("CREDENTIALS_DIRECTORY"))))
        said["own"] |= {
            "waiting_messages": waiting.messages,
            "waiting_set_aside": waiting.refused,
            "waiting_since": None if waiting.since is None else _moment(waiting.since),
            "waiting_unknown": waiting.unknown,
        }
    out.say("\n".join([*_lines(state, waiting), *_missing(state, settings.processes())]), said)


def facts(state: State) -> dict[str, Any]:
    """The state as JSON shows it: times in ISO 8601, round trips in milliseconds."""
    return {
        "own": _report(asdict(state.own), state.now),
        "problems": list(state.problems),
        "peers": [
            _report(asdict(peer.report), state.now)
            | {"address": peer.address, "since": _moment(peer.since), "told_seconds_ago": state.now - peer.told}
            for peer in state.peers
        ],
    }


def _report(report: dict[str, Any], now: int) -> dict[str, Any]:
    report["links"] = [each | {"round_trip_ms": _ms(each.pop("round_trip"))} for each in report["links"]]
    report["round_trip_ms"] = _ms(report.pop("round_trip"))
    report["uptime_seconds"] = now - report["started"]
    report["started"] = _moment(report["started"])
    return report


def _lines(state: State, waiting: Sum | None) -> list[str]:
    own = state.own
    where = f", location {own.location}" if own.location else ""
    lines = [
        f"{own.name}: {own.role}{where}, version {own.version}, up {_span(state.now - own.started)}",
        f"Mail waits for {own.waiting} {'mailbox' if own.waiting == 1 else 'mailboxes'}, sealed: {own.waiting_octets:,} octets on the disk."
        if own.waiting
        else "No mail waits.",
        *(_counted(waiting, state.now) if waiting is not None else ()),
        *(f"PROBLEM: {problem}." for problem in state.problems),
        "",
    ]
    heads = ("PROCESS", "ROLE", "ADDRESS", "VERSION", "IMAP", "MX", "MAILBOXES", "ROUND TRIP", "SINCE")
    rows = [(own.name, own.role, "here", own.version, str(own.imap), str(own.mx), str(own.mailboxes), "", _moment(own.started))]
    for peer in state.peers:
        report, late = peer.report, state.now - peer.told
        trip = "" if report.round_trip is None else f"{report.round_trip / 1000:.1f} ms"
        since = _moment(peer.since) + (f" (silent for {late} s)" if late > 15 else "")
        numbers = (str(report.imap), str(report.mx), str(report.mailboxes))
        rows.append((report.name, report.role, peer.address, report.version, *numbers, trip, since))
    lines.append(table(heads, rows))
    if own.links:
        links = [
            (
                each.name,
                "connected" if each.connected else "NOT CONNECTED",
                "" if _ms(each.round_trip) is None else f"{_ms(each.round_trip)} ms",
            )
            for each in own.links
        ]
        lines += ["", table(("LINK TO", "", "ROUND TRIP"), links)]
    return lines


def _missing(state: State, wanted: int) -> list[str]:
    """What is to be said when there are fewer workers than the settings ask for."""
    # By their names: those of a secondary have its role.  Others of that name are those of other boxes, or about to leave.
    there = len({peer.report.name for peer in state.peers if peer.address == "unix" and "/worker-" in peer.report.name})
    if there >= wanted:
        return []
    reasons = "One that starts is there in a moment; the log says when one died; another number in the settings takes a restart."
    return ["", f"{there} of {wanted} workers are connected. {reasons}"]


def _counted(waiting: Sum, now: int) -> Iterator[str]:
    """What was counted, in sentences."""
    if waiting.messages:
        oldest = "" if waiting.since is None else f", for {_span(now - waiting.since)} at most"
        yield f"{waiting.messages:,} {'message waits' if waiting.messages == 1 else 'messages wait'}{oldest}."
    if waiting.refused:
        those = "1 is" if waiting.refused == 1 else f"{waiting.refused:,} are"
        yield f"{those} set aside, because storing failed; forwardemail check names where."
    if waiting.unknown:
        yield f"{waiting.unknown} of the files are being written just now and are not counted."


def _ms(microseconds: int | None) -> float | None:
    return None if microseconds is None else round(microseconds / 1000, 2)


def _moment(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def _span(seconds: int) -> str:
    """A time in its two largest units."""
    days, rest = divmod(max(0, seconds), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [f"{number} {unit}" for number, unit in ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")) if number]
    return " ".join(parts[:2]) or "0 s"
