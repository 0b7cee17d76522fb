"""Debian's Postfix and Dovecot as subjects of measurement: configured in a temporary folder, on loopback, on ports of their own.

Postfix needs root.  Mail is stored by Dovecot's LMTP as ``nobody``, in sdbox format, with fsync as it comes.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from bench.mail.ours import pss
from tests.whole.daemon import Owner

_DOVECOT = """
base_dir = {base}/run
log_path = {base}/dovecot.log
protocols = imap lmtp
listen = 127.0.0.1
ssl = required
ssl_cert = <{base}/certificate.pem
ssl_key = <{base}/key.pem
default_internal_user = dovecot
default_internal_group = dovecot
default_login_user = dovenull
default_process_limit = 4000
default_client_limit = 8000
default_vsz_limit = 0
mail_location = sdbox:~/mail
mail_uid = nobody
mail_gid = nogroup
first_valid_uid = 1
first_valid_gid = 1
mail_max_userip_connections = 5000
recipient_delimiter = +
auth_cache_size = 10M
passdb {{
  driver = static
  args = password=secret
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={base}/mail/%u allow_all_users=yes
}}
service imap-login {{
  chroot =
  service_count = 0
  process_min_avail = 2
  inet_listener imap {{
    port = 0
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
service imap {{
  process_limit = 4000
}}
service lmtp {{
  process_min_avail = 4
  inet_listener lmtp {{
    port = {lmtp}
  }}
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
namespace inbox {{
  inbox = yes
  separator = /
}}
"""

_MAIN = """
compatibility_level = 3.6
queue_directory = {base}/queue
data_directory = {base}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {base}/postfix.log
maillog_file_prefixes = {base}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = bench.example.com
mydestination =
alias_maps =
alias_database =
mynetworks = 127.0.0.0/8
smtpd_recipient_restrictions = {restrictions}permit_mynetworks, reject
smtpd_peername_lookup = no
virtual_mailbox_domains = example.com
virtual_mailbox_maps = static:all
virtual_transport = lmtp:inet:127.0.0.1:{lmtp}
"""

_MASTER = """
127.0.0.1:{smtp} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


def missing() -> str:
    """Why they cannot be measured here; empty when they can."""
    programs = [name for name in ("postfix", "dovecot", "smtp-source") if shutil.which(name) is None]
    if programs:
        return f"not installed: {', '.join(programs)} (Debian: postfix dovecot-imapd dovecot-lmtpd)"
    if not Path("/usr/lib/dovecot/lmtp").exists():
        return "not installed: dovecot-lmtpd"
    return "" if os.geteuid() == 0 else "Postfix is started by root only"


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
    return number


def _wait(port: int, log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise SystemExit(f"nothing listens on {port}:\n{log.read_text() if log.exists() else ''}") from None
            time.sleep(0.05)


class Dovecot:
    """IMAP over TLS and LMTP."""

    name = "dovecot"

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="bench-dovecot-"))
        self.base.chmod(0o755)
        self.imaps_port, self.lmtp_port = _port(), _port()
        (self.base / "mail").mkdir()
        nobody = pwd.getpwnam("nobody")
        os.chown(self.base / "mail", nobody.pw_uid, nobody.pw_gid)
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=localhost",
             "-keyout", str(self.base / "key.pem"), "-out", str(self.base / "certificate.pem")], check=True, capture_output=True,
        )  # fmt: skip
        config = self.base / "dovecot.conf"
        config.write_text(_DOVECOT.format(base=self.base, imaps=self.imaps_port, lmtp=self.lmtp_port))
        with (self.base / "output").open("wb") as output:
            self._process = subprocess.Popen(
                ["dovecot", "-F", "-c", str(config)], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        _wait(self.imaps_port, self.base / "output")
        _wait(self.lmtp_port, self.base / "output")

    owner = Owner("bench@example.com", "secret")

    @property
    def owners(self) -> list[Owner]:
        """As many as anybody wants: one password opens all."""
        return [Owner("bench@example.com", "secret"), *(Owner(f"more{number}@example.com", "secret") for number in range(200))]

    def memory(self) -> int:
        """Octets of all processes, what they share counted once."""
        return pss(_family(self._process.pid))

    def close(self) -> None:
        """End it and remove the folder."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)
        shutil.rmtree(self.base, ignore_errors=True)


def _family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for parent in found:
        for thread in Path(f"/proc/{parent}/task").glob("*"):
            found += [int(child) for child in (thread / "children").read_text().split()]
    return found


class Postfix:
    """SMTP into a queue, and from there by LMTP to Dovecot.

    :param hold: everything stays in the queue: acceptance alone is measured.
    """

    name = "postfix"

    def __init__(self, lmtp_port: int, hold: bool) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="bench-postfix-"))
        self.base.chmod(0o755)
        self.smtp_port = _port()
        for name in ("queue", "data", "etc"):
            (self.base / name).mkdir()
        os.chown(self.base / "data", pwd.getpwnam("postfix").pw_uid, -1)
        etc = self.base / "etc"
        restrictions = "check_client_access static:HOLD, " if hold else ""
        (etc / "main.cf").write_text(_MAIN.format(base=self.base, lmtp=lmtp_port, restrictions=restrictions))
        (etc / "master.cf").write_text(_MASTER.format(smtp=self.smtp_port))
        (etc / "dynamicmaps.cf").touch()
        # Both directories of these two files are told by main.cf's compiled-in defaults, so links do.
        for name in ("postfix-files",):
            if Path("/etc/postfix", name).exists():
                (etc / name).symlink_to(Path("/etc/postfix", name))
        with (self.base / "output").open("wb") as output:
            self._process = subprocess.Popen(
                ["postfix", "-c", str(etc), "start-fg"], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        _wait(self.smtp_port, self.base / "output")

    def queued(self) -> int:
        """Messages in the queue, in whatever state."""
        count = 0
        for name in ("incoming", "active", "deferred", "hold", "maildrop"):
            for _, _, files in os.walk(self.base / "queue" / name):
                count += len(files)
        return count

    def close(self) -> None:
        """End it and remove the folder."""
        subprocess.run(["postfix", "-c", str(self.base / "etc"), "stop"], capture_output=True, check=False)
        try:
            self._process.wait(30)
        finally:
            shutil.rmtree(self.base, ignore_errors=True)
