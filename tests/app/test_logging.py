"""What the log looks like, and that nobody can write a line into it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from fe_twisted.app.logging import LineObserver
from fe_twisted.base import log

TIME = 1795342881.123  # 2026-11-22T10:21:21.123Z


def line(layout: str = "text", addresses: str = "full", level: str = "info", **event: Any) -> str:
    file = io.StringIO()
    LineObserver(file, layout, addresses, level)({"log_time": TIME, "log_level": LogLevel.info, **event})
    return file.getvalue()


def ours(name: str = "mx.accepted", layout: str = "text", addresses: str = "full", **fields: object) -> str:
    return line(layout, addresses, log_namespace="forwardemail", event=name, fields=fields)


def test_text_line() -> None:
    assert ours(conn="0a1b", octets=29, heard=True, peer="::1", id=None) == (
        "2026-11-22T10:21:21.123Z info mx.accepted conn=0a1b octets=29 heard=true peer=::1\n"
    )


def test_json_line() -> None:
    assert json.loads(ours(layout="json", conn="0a1b", octets=29, raw=b"\xff", event_="x")) == {
        "time": "2026-11-22T10:21:21.123Z",
        "level": "info",
        "event": "mx.accepted",
        "conn": "0a1b",
        "octets": 29,
        "raw": "\\xff",
        "event_": "x",
    }


def test_a_field_cannot_take_the_place_of_the_time() -> None:
    found = json.loads(ours(layout="json", time="yesterday", level="none"))
    assert found["time"] == "2026-11-22T10:21:21.123Z"
    assert (found["time_"], found["level_"]) == ("yesterday", "none")


@pytest.mark.parametrize("layout", ["text", "json"])
@pytest.mark.parametrize("value", ["a\r\n2026 info forged", "a\x00b", "a\x1b[31m", "a\u2028b", "a\x85b", '"', "\ud800", "a b"])
def test_no_value_makes_a_second_line_or_a_control_character(layout: str, value: str) -> None:
    written = ours(layout=layout, helo=value)
    assert written.count("\n") == 1
    assert len(written.splitlines()) == 1
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in written[:-1])
    written.encode("utf-8")


def test_addresses_in_full() -> None:
    assert "sender=me@example.net recipient=you@example.com" in ours(sender="me@example.net", recipient="you@example.com")


def test_addresses_left_out() -> None:
    assert ours(addresses="none", sender="me@example.net", conn="1").endswith("mx.accepted conn=1\n")


def test_hashed_addresses_can_be_told_apart_and_not_be_looked_up() -> None:
    file = io.StringIO()
    observer = LineObserver(file, "json", "hashed", "info")
    for sender in ("me@example.net", "me@example.net", "you@example.net", ""):
        fields = {"sender": sender, "recipient": ["a@example.com", sender]}
        observer({"log_time": TIME, "log_level": LogLevel.info, "log_namespace": "forwardemail", "event": "x", "fields": fields})
    first, again, other, empty = (json.loads(each) for each in file.getvalue().splitlines())
    assert "example" not in file.getvalue()
    assert first == again
    assert first["sender"] != other["sender"]
    assert first["recipient"][1] == first["sender"]
    assert empty["sender"] == ""
    assert json.loads(ours(layout="json", addresses="hashed", sender="me@example.net"))["sender"] != first["sender"]


def test_level_cuts_off() -> None:
    assert line(level="warn", log_namespace="forwardemail", event="x", fields={}) == ""
    assert line(level="info", log_namespace="forwardemail", event="x", fields={}) != ""


def test_lines_of_twisted_become_events() -> None:
    assert line(log_namespace="twisted.internet.base", log_format="Main loop {what}.", what="ended") == (
        '2026-11-22T10:21:21.123Z info twisted message="Main loop ended."\n'
    )


def test_what_twisted_says_of_ports_is_for_debugging() -> None:
    for text in ("MxFactory starting on 25", "(TCP Port 25 Closed)"):
        event = {"log_namespace": "log_legacy", "log_format": "{log_text}", "log_text": text}
        assert line(**event) == ""
        assert text in line(level="debug", **event)


def test_a_failure_is_one_line_with_its_traceback() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        caught = error
    of_twisted = line(log_namespace="x", log_format="", log_failure=Failure(caught))
    of_ours = line(log_namespace="forwardemail", event="storage.close", fields={}, error=caught)
    for written in (of_twisted, of_ours):
        assert written.count("\n") == 1
        assert "Traceback" in written and "ValueError" in written


def test_what_cannot_be_rendered_is_said_and_not_raised() -> None:
    class Bad:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    assert ours(value=Bad()) == "2026-11-22T10:21:21.123Z error log.unrenderable error=RuntimeError\n"


def test_a_file_that_cannot_be_written_does_not_stop_the_service() -> None:
    file = io.StringIO()
    observer = LineObserver(file, "text", "full", "info")
    file.close()
    observer({"log_time": TIME, "log_level": LogLevel.info, "log_namespace": "x", "log_format": "y"})


def test_reopening_follows_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "log"
    observer = LineObserver(path, "text", "full", "info")
    event = {"log_time": TIME, "log_level": LogLevel.info, "log_namespace": "x", "log_format": "y"}
    observer(event)
    path.rename(tmp_path / "log.1")
    observer.reopen()
    observer(event)
    assert path.read_text() == (tmp_path / "log.1").read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_events_of_the_program_reach_an_observer(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(log._logger, "observer", LineObserver(file, "text", "full", "info"))
    log.event("mx.accepted", conn="1")
    log.warning("tls.not_reloaded", reason="no file")
    assert [each.split(" ", 1)[1] for each in file.getvalue().splitlines()] == [
        "info mx.accepted conn=1",
        'warn tls.not_reloaded reason="no file"',
    ]
