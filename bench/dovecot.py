"""Debian's Dovecot with a configuration and mail of its own in a temporary folder; needs root, as its master does."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from bench import process

USER, PASSWORD = "hello@example.com", "secret"

_PLUGINS = Path("/usr/lib/dovecot/modules")

#: By name: where mail lies, which plugins there are, and their settings.
VARIANTS: dict[str, tuple[str, str, str]] = {
    "maildir": ("maildir:~/mail", "", ""),
    "sdbox": ("sdbox:~/mail", "", ""),
    "mail_crypt": ("maildir:~/mail", "mail_crypt", "mail_crypt_curve = secp521r1\n  mail_crypt_save_version = 2"),
    "fts-xapian": (
        "maildir:~/mail",
        "fts fts_xapian",
        "fts = xapian\n  fts_xapian = partial=3 full=20\n  fts_enforced = yes",
    ),
}
_NEEDS = {"mail_crypt": "lib10_mail_crypt_plugin.so", "fts-xapian": "lib21_fts_xapian_plugin.so"}

_CONFIG = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
protocols = imap lmtp
listen = 127.0.0.1
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{key}
disable_plaintext_auth = no
auth_cache_size = 1M
default_internal_user = dovecot
default_login_user = dovenull
first_valid_uid = 1
mail_uid = mail
mail_gid = mail
mail_home = {folder}/home/%u
mail_location = {location}
mail_plugins = {plugins}
mail_attribute_dict = file:%h/attributes
mail_max_userip_connections = 5000
default_vsz_limit = 1G
default_process_limit = 3000
default_client_limit = 12000
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid=mail gid=mail home={folder}/home/%u
}}
namespace inbox {{
  inbox = yes
  separator = /
}}
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    port = {lmtp}
  }}
}}
service stats {{
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
plugin {{
  {plugin}
}}
"""


def missing(variant: str) -> str:
    """Why it cannot be measured here, or an empty string."""
    if not shutil.which("dovecot"):
        return "Dovecot is not installed"
    if os.geteuid() != 0:
        return "Dovecot needs root"
    file = _NEEDS.get(variant)
    return "" if file is None or (_PLUGINS / file).exists() else f"Dovecot's {variant} is not installed"


class Dovecot:
    """One installation.

    :param folder: empty, and every folder above it open to all.
    :param certificate, key: PEM files.
    """

    def __init__(self, folder: Path, variant: str, certificate: Path, key: Path) -> None:
        self.name = f"dovecot {variant}"
        self.folder = folder
        location, plugins, plugin = VARIANTS[variant]
        self.ports = {name: process.free_port() for name in ("imap", "imaps", "lmtp")}
        for name in ("run", "state", "home"):
            (folder / name).mkdir()
        shutil.chown(folder / "home", "mail", "mail")
        mail = {"location": location, "plugins": plugins, "plugin": plugin}
        text = _CONFIG.format(folder=folder, password=PASSWORD, certificate=certificate, key=key, **mail, **self.ports)
        (folder / "dovecot.conf").write_text(text)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Dovecot:
        """Start; returns when it answers."""
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                ["dovecot", "-F", "-c", str(self.folder / "dovecot.conf")], stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        process.wait_for_port(self.ports["imap"])
        return self

    @property
    def pid(self) -> int:
        """Of the master."""
        if self._process is None:
            raise RuntimeError("not started")
        return self._process.pid

    def doveadm(self, *arguments: str) -> str:
        """Run ``doveadm``; its output."""
        command = ["doveadm", "-c", str(self.folder / "dovecot.conf"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def stop(self) -> None:
        """End it and wait."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None
