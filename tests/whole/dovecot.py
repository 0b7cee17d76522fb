"""Debian's Dovecot on loopback, started from a folder of its own: a second server to compare answers with.

It needs no account and no service of the machine: one password for everybody, mail of user ``u`` in ``mail/u``.  Started by root it serves
mail as ``nobody``, otherwise as whoever runs the tests.
"""

from __future__ import annotations

import getpass
import grp
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from tests.whole.daemon import PATIENCE, until

PASSWORD = "secret"

_CONFIG = """
base_dir = {base}/run
log_path = {base}/log
protocols = imap
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain
default_internal_user = {internal}
default_internal_group = {internal_group}
default_login_user = {login}
default_process_limit = 20
default_vsz_limit = 0
mail_location = {mail}
mail_uid = {user}
mail_gid = {group}
first_valid_uid = 1
first_valid_gid = 1
mail_privileged_group =
mail_max_userip_connections = 100
mail_save_crlf = yes
mmap_disable = no
imap_max_line_length = 1M
imap_capability = +IDLE BINARY MOVE
imap_fetch_failure = no-after
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={user} gid={group} home={base}/mail/%u
}}
service anvil {{
  chroot =
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
  service_count = 0
  process_min_avail = 1
}}
service stats {{
  chroot =
}}
namespace inbox {{
  inbox = yes
  separator = /
}}
"""


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Dovecot:
    """A running one; :meth:`close` ends it and removes its folder.

    :param program: the path of ``dovecot``.
    :param mail_location: Dovecot's setting, with ``{base}`` for the folder.
    """

    def __init__(self, program: str, mail_location: str = "sdbox:~/mail") -> None:
        # Not in pytest's folder, which nobody but the one who runs the tests may enter.
        self.base = Path(tempfile.mkdtemp(prefix="dovecot-"))
        self.base.chmod(0o755)
        self.port = free_port()
        mail = self.base / "mail"
        mail.mkdir()
        if os.getuid() == 0:
            user, internal, login = "nobody", "dovecot", "dovenull"
            account = pwd.getpwnam(user)
            group, internal_group = grp.getgrgid(account.pw_gid).gr_name, grp.getgrgid(pwd.getpwnam(internal).pw_gid).gr_name
            os.chown(mail, account.pw_uid, account.pw_gid)
        else:
            user = internal = login = getpass.getuser()
            group = internal_group = grp.getgrgid(os.getgid()).gr_name
        config = self.base / "dovecot.conf"
        config.write_text(
            _CONFIG.format(
                base=self.base, port=self.port, password=PASSWORD, user=user, group=group, internal=internal, internal_group=internal_group,
                login=login, mail=mail_location.format(base=self.base),
            )
        )  # fmt: skip
        with (self.base / "output").open("wb") as output:
            self.process = subprocess.Popen(
                [program, "-F", "-c", str(config)], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        until(self._answers, f"Dovecot answers\n{self.log()}")

    def log(self) -> str:
        """All that it has said."""
        files = (self.base / "output", self.base / "log")
        return "".join(path.read_text("utf-8", "replace") for path in files if path.exists())

    def _answers(self) -> bool:
        assert self.process.poll() is None, f"Dovecot ended with {self.process.returncode}\n{self.log()}"
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                return bool(probe.recv(1))
        except OSError:
            return False

    def close(self) -> None:
        """End it; the master process ends all others."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        finally:
            shutil.rmtree(self.base, ignore_errors=True)
