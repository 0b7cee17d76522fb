"""What settings become."""

from __future__ import annotations

from pathlib import Path

from fe_twisted.app.wiring import _mx_limits
from fe_twisted.base.load import load
from fe_twisted.base.settings import Settings
from fe_twisted.servers.smtp.limits import MxLimits


def settings(folder: Path, text: str) -> Settings:
    file = folder / "forwardemail.toml"
    file.write_text(text)
    return load(file, {})


def test_without_settings_the_limits_of_mx_are_its_own(tmp_path: Path) -> None:
    assert _mx_limits(settings(tmp_path, "")) == MxLimits()


def test_the_limits_of_mx_can_be_set(tmp_path: Path) -> None:
    text = "mx_commands_per_connection = 200\nmx_errors_per_connection = 3\nmx_messages_per_connection = 7\nmx_timeout_seconds = 60\n"
    text += "message_size_limit = 100000\nrecipients_limit = 150\n"
    found = _mx_limits(settings(tmp_path, text))
    assert found == MxLimits(commands=200, errors=3, transactions=7, idle=60, message_size=100_000, recipients=150)
