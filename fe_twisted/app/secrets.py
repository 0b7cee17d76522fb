"""The secrets of the link between processes and boxes."""

from __future__ import annotations

import os

from fe_twisted.base.errors import BadSettings
from fe_twisted.base.settings import Settings
from fe_twisted.protocols.crypto.derive import CLUSTER, derive
from fe_twisted.storage.vault.token import read_tokens


def link_secrets(settings: Settings, server_key: bytes) -> list[bytes]:
    """The secrets that are accepted, the one for calling other boxes first and that of this box alone last.

    Processes of one box need no file: they call with the last one, see :func:`own_link_secret`, so that a new token in the file does not
    come between a primary and the workers that it starts after it.

    :raises BadSettings: the file cannot be used; or it is not there, and this box is a secondary or has a link port.
    """
    own = own_link_secret(server_key)
    file = settings.link_secret_file
    if file.exists():
        return [*read_tokens(file, credentials=os.environ.get("CREDENTIALS_DIRECTORY")), own]
    if settings.role == "secondary":
        raise BadSettings(f"{file} is not there; on the primary: forwardemail link token, and here: forwardemail link join")
    if settings.link_port or settings.primaries:
        raise BadSettings(f"{file} is not there; make it with: forwardemail link token")
    return [own]


def own_link_secret(server_key: bytes) -> bytes:
    """The secret between the processes of one box, on its unix socket: whoever can read the server key has it."""
    return derive(server_key, CLUSTER)
