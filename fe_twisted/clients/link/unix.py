"""The primary's unix socket."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import UNIXClientEndpoint

#: Octets of the path of a unix socket at most, the end included (``sockaddr_un``, see unix(7)).
LONGEST = 108


def address(path: Path) -> str:
    """What a socket's path is called so that the kernel takes it, however deep the folder lies.

    :raises OSError: the folder is not there.
    """
    whole = os.path.abspath(path)
    if len(os.fsencode(whole)) < LONGEST:
        return whole
    # The descriptor stays open as long as the name is in use, that is, to the end of the process.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/self/fd/{folder}/{path.name}"


def unix_endpoint(reactor: Any, path: Path) -> Any:
    """An endpoint that connects to the primary of this box.

    :raises OSError: the folder is not there.
    """
    return UNIXClientEndpoint(reactor, address(path))  # type: ignore[no-untyped-call]
