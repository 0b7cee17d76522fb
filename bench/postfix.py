"""Debian's Postfix with a configuration and a queue of its own in a temporary folder; needs root, as its master does.

Two ways: everything accepted stays in the ``hold`` queue, so that acceptance is measured and nothing else; or everything goes on to
Dovecot over LMTP.  Nothing is logged, no client is looked up, and input is not slowed down: all of it in its favour.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from bench import process

_MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
mail_owner = postfix
setgid_group = postdrop
daemon_directory = /usr/lib/postfix/sbin
command_directory = /usr/sbin
myhostname = localhost.example.com
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
local_recipient_maps =
virtual_mailbox_domains = example.com
virtual_mailbox_maps = static:ok
virtual_transport = {transport}
smtpd_recipient_restrictions = {restriction}
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
in_flow_delay = 0s
smtp_dns_support_level = disabled
lmtp_destination_concurrency_limit = 20
lmtp_destination_recipient_limit = 1
message_size_limit = 52428800
mailbox_size_limit = 0
virtual_mailbox_limit = 0
"""

_MASTER = """
{port}    inet  n       -       n       -       -       smtpd
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
flush     unix  n       -       n       1000?   0       flush
proxymap  unix  -       -       n       -       -       proxymap
showq     unix  n       -       n       -       -       showq
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
discard   unix  -       -       n       -       -       discard
lmtp      unix  -       -       n       -       -       lmtp
anvil     unix  -       -       n       -       1       anvil
scache    unix  -       -       n       -       1       scache
"""


def missing() -> str:
    """Why it cannot be measured here, or an empty string."""
    if not shutil.which("postfix"):
        return "Postfix is not installed"
    return "" if os.geteuid() == 0 else "Postfix needs root"


class Postfix:
    """One installation.

    :param folder: empty, and every folder above it open to all.
    :param lmtp: port of an LMTP server to hand everything to; None keeps it in the queue.
    """

    def __init__(self, folder: Path, lmtp: int | None = None) -> None:
        self.folder = folder
        self.port = process.free_port()
        self._conf = folder / "conf"
        for name in ("conf", "queue", "data"):
            (folder / name).mkdir()
        shutil.chown(folder / "data", "postfix")
        transport = f"lmtp:inet:127.0.0.1:{lmtp}" if lmtp else "lmtp:inet:127.0.0.1:1"
        restriction = "permit_mynetworks, reject" if lmtp else "check_client_access static:HOLD, permit_mynetworks, reject"
        (self._conf / "main.cf").write_text(_MAIN.format(folder=folder, transport=transport, restriction=restriction))
        (self._conf / "master.cf").write_text(_MASTER.format(port=f"127.0.0.1:{self.port}"))
        for name in ("postfix-files", "dynamicmaps.cf"):
            (self._conf / name).write_bytes((Path("/etc/postfix") / name).read_bytes())

    def start(self) -> Postfix:
        """Start; returns when it answers."""
        self._postfix("start")
        process.wait_for_port(self.port)
        return self

    @property
    def pid(self) -> int:
        """Of the master."""
        return int((self.folder / "queue/pid/master.pid").read_text())

    def queued(self) -> int:
        """Messages in any of the queues."""
        folders = ("maildrop", "incoming", "active", "deferred", "hold")
        return sum(len(files) for name in folders for _, _, files in os.walk(self.folder / "queue" / name))

    def drain(self, seconds: float = 120) -> None:
        """Return when everything has gone on.

        :raises TimeoutError: it has not.
        """
        until = time.monotonic() + seconds
        while self.queued():
            if time.monotonic() > until:
                raise TimeoutError(f"{self.queued()} messages still in Postfix's queue")
            time.sleep(0.02)

    def empty(self) -> None:
        """Throw away what is queued."""
        for name in ("hold", "deferred"):
            for folder, _, files in os.walk(self.folder / "queue" / name):
                for file in files:
                    (Path(folder) / file).unlink()

    def stop(self) -> None:
        """End it and wait."""
        process.end(self.pid)

    def _postfix(self, verb: str) -> None:
        done = subprocess.run(["postfix", "-c", str(self._conf), verb], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"postfix {verb}: {done.stdout}{done.stderr}")
