"""What the command line and the service open alike: the server key, the directory, the mailbox files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from fe_twisted.base.settings import Settings
from fe_twisted.protocols.crypto.derive import SHARED, derive, directory_key
from fe_twisted.services.accounts.admin import Accounts
from fe_twisted.storage.directory.sql import SqlDirectory, open_directory
from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.vault.secret import load_server_key


@dataclass(frozen=True, slots=True)
class Store:
    """Everything on disk that is not one mailbox."""

    server_key: bytes = field(repr=False)
    directory: SqlDirectory
    files: MailboxFiles
    accounts: Accounts

    def shared_secret(self) -> bytes:
        """What all boxes with this directory derive the same keys from; the first that asks makes it.

        :raises fe_twisted.base.errors.MailError: the directory cannot be asked.
        """
        return self.directory.shared_secret(derive(self.server_key, SHARED))


def open_store(settings: Settings, *, create: bool = False) -> Store:
    """Open it; the caller closes ``directory``.

    :param create: make the embedded directory when it is not there.
    :raises BadSettings: a secret, file or URL that cannot be used.
    :raises MailError: the directory is damaged, too new or cannot be reached.
    """
    server_key = load_server_key(settings.server_key_file, credentials=os.environ.get("CREDENTIALS_DIRECTORY"))
    directory = directory_of(settings, server_key, create=create)
    try:
        files = MailboxFiles(settings.mailbox_folder, settings.cipher)
    except OSError:
        directory.close()
        raise
    location = settings.location if settings.role == "primary" else ""
    return Store(server_key, directory, files, Accounts(directory, files, location=location))


def directory_of(settings: Settings, server_key: bytes, *, create: bool = False) -> SqlDirectory:
    """The directory that the settings name.

    :raises BadSettings, MailError: as :func:`open_store`.
    """
    # SQLAlchemy's name of the driver that is installed; people write the plain form, which is the one in PostgreSQL's manual.
    url = settings.directory_url.replace("postgresql://", "postgresql+psycopg://", 1)
    return open_directory(url or settings.directory_file, directory_key(server_key), create=create)


@contextlib.contextmanager
def opened(settings: Settings, *, create: bool = False) -> Iterator[Store]:
    """The same for the length of a command."""
    store = open_store(settings, create=create)
    try:
        yield store
    finally:
        store.directory.close()
