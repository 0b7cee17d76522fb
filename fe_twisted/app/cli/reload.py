"""``forwardemail reload``: new settings and a new program for the workers, while mail goes on."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from pathlib import Path

import click

from fe_twisted.app.cli.terminal import terminal, verb
from fe_twisted.base.errors import Later, NotFound
from fe_twisted.base.settings import Settings
from fe_twisted.clients.link.unix import address

#: Seconds between two looks at the processes.
LOOK = 0.1


@click.command()
@click.option("--wait", "seconds", type=click.IntRange(0, 3600), default=120, show_default=True, help="Seconds to wait until it is done.")
@verb
def reload(seconds: int) -> None:
    """Replace the worker processes one by one, by ones with the settings and the program of now.

    The next worker accepts connections before the one before stops to. That one lets clients finish what they are in the middle of, for
    shutdown_seconds at most, and ends the other sessions; IMAP clients connect again by themselves. The certificate is read again as well.
    The process that was started first stays as it is: what it needs (ports, location, files) takes a restart.
    """
    out = terminal()
    settings = out.settings()  # those that cannot be used are refused here, and nothing has changed
    pid = running(settings)
    before = workers_of(pid)
    _signal(pid, signal.SIGUSR2)
    if not before:
        out.say("The certificate is read again. There are no workers; settings take effect at the next start.", {"workers": 0, "pid": pid})
        return
    deadline = time.monotonic() + seconds
    while seconds and (left := before & workers_of(pid)):
        _signal(pid, 0)
        if time.monotonic() > deadline:
            raise Later(f"{len(left)} of {len(before)} workers were not replaced within {seconds} seconds; the log says why")
        time.sleep(LOOK)
    _signal(pid, 0)  # workers end with their server, and then nothing was replaced
    number = len(before)
    done = ("was" if number == 1 else "were") if seconds else ("is being" if number == 1 else "are being")
    out.say(f"{number} {'worker' if number == 1 else 'workers'} {done} replaced.", {"workers": number, "pid": pid})


def _signal(pid: int, number: int) -> None:
    """Send a signal to the server; 0 only asks whether it is there (kill(2)).

    :raises Later: it has ended since it was found.
    """
    try:
        os.kill(pid, number)
    except ProcessLookupError as error:
        raise Later("the server ended meanwhile; see its log, and start it again") from error


def running(settings: Settings) -> int:
    """The process id of the server that uses these settings, as the kernel knows it (SO_PEERCRED, unix(7)).

    :raises NotFound: none runs.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(address(settings.link_socket))
        except OSError as error:
            raise NotFound(f"the server is not running: {settings.link_socket} does not answer", reason=str(error)) from error
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, _, _ = struct.unpack("3i", credentials)
    return int(pid)


def workers_of(pid: int) -> set[int]:
    """The worker processes of a server."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return set()
    return {int(child) for child in children if _is_worker(child)}


def _is_worker(pid: str) -> bool:
    try:
        return b"fe_twisted.app.worker" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
