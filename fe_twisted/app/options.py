"""``twistd forwardemail``: its options, and the service that they make."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, TextIO

from twisted.python import usage

from fe_twisted.app.daemon import Daemon
from fe_twisted.app.logging import LineObserver
from fe_twisted.app.steady import steady
from fe_twisted.base.errors import BadSettings
from fe_twisted.base.load import load
from fe_twisted.base.settings import PREFIX, Settings


class Options(usage.Options):
    """What follows ``forwardemail`` on the command line of twistd."""

    synopsis = "[--config FILE]"
    longdesc = "Make a settings file with: forwardemail init --data DIR"
    optParameters = [["config", "c", None, f"The settings file; else {PREFIX}CONFIG."]]

    settings: Settings

    def postOptions(self) -> None:
        """Read the settings.

        :raises SystemExit: they cannot be used; every problem is on the standard error.
        """
        file = self["config"] or os.environ.get(f"{PREFIX}CONFIG")
        if not file:
            raise usage.UsageError(f"which settings? Give --config FILE, or set {PREFIX}CONFIG")
        try:
            self.settings = load(file, os.environ)
        except BadSettings as error:
            print(f"forwardemail: {error}", file=sys.stderr)
            raise SystemExit(1) from error


def makeService(options: Options) -> Daemon:
    """The service, not started.

    :raises SystemExit: the log file cannot be written.
    """
    from twisted.internet import reactor  # not before twistd has chosen one

    steady(reactor)
    return Daemon(options.settings, reactor, _observer(options), foreground=_in_foreground(options))


def _in_foreground(options: Options) -> bool:
    twistd: Any = options.parent
    return twistd is None or bool(twistd.get("nodaemon") or twistd.get("debug"))


def _observer(options: Options) -> LineObserver | None:
    """Where the log goes: twistd's ``--syslog`` and ``--logger`` win, then its ``--logfile``, then the terminal or ``data``."""
    twistd: Any = options.parent if options.parent is not None else {}
    settings = options.settings
    if twistd.get("syslog") or twistd.get("logger"):
        return None
    name = twistd.get("logfile")
    if name == "-" or (_in_foreground(options) and not name):
        return LineObserver(_standard_output(), settings.log_format, settings.log_addresses, settings.log_level)
    path = Path(name).absolute() if name else settings.data_folder / "forwardemail.log"
    try:
        return LineObserver(path, settings.log_format, settings.log_addresses, settings.log_level)
    except OSError as error:
        print(f"forwardemail: the log file {path} cannot be written: {error.strerror}", file=sys.stderr)
        raise SystemExit(1) from error


def _standard_output() -> TextIO:
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 must not cost a line
    return sys.stdout
