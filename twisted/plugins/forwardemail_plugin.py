"""Makes ``twistd forwardemail`` known.

Nothing of the program is imported before the command is used.  This folder and the one above it must not get an ``__init__.py``:
twisted.plugin takes every ``twisted/plugins`` folder on the path that has none as a part of its own package.
"""

from __future__ import annotations

from twisted.application.service import ServiceMaker

forwardemail = ServiceMaker(
    "Forward Email",
    "fe_twisted.app.options",
    "A mail server with one encrypted SQLite file per alias: MX and IMAP.",
    "forwardemail",
)
