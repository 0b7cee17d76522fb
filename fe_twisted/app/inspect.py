"""What ``forwardemail check`` looks at."""

from __future__ import annotations

import datetime
import errno
import os
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from cryptography import x509

from fe_twisted.app.ask import greet, meet
from fe_twisted.app.certificates import days_left, readable_by_others
from fe_twisted.app.keymark import QUEUED, TEMPORARY, foreign, refusal
from fe_twisted.app.ports import bind
from fe_twisted.app.secrets import link_secrets
from fe_twisted.app.store import Store, opened
from fe_twisted.app.waiting import look
from fe_twisted.base.errors import MailError, PrimaryAway
from fe_twisted.base.settings import Settings
from fe_twisted.servers.tls import ServerTLS
from fe_twisted.storage.sqlite.connect import PLAIN_HEADER, header

#: Days before its end at which a certificate should have been renewed.
RENEW_DAYS = 14


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    :param status: ``ok``, ``note`` for what may be meant, ``away`` for what is elsewhere and does not answer, ``problem`` for what must
        change here.
    """

    check: str
    status: Literal["ok", "note", "away", "problem"]
    detail: str


def inspect(settings: Settings, now: datetime.datetime) -> Iterator[Finding]:
    """Look at everything; nothing is changed.

    :param now: aware.
    """
    yield Finding("settings", "ok", str(settings.file))
    try:
        with opened(settings) as store:
            yield _server_key(settings, store.server_key)
            yield from _directory(store)
            yield from _files(store)
            yield from _queues(settings, {alias.mailbox_id for alias in store.accounts.aliases()})
            yield from _waiting(settings, store)
            if settings.role == "secondary" or settings.link_port or settings.primaries:
                yield from _link(settings, store.server_key)
    except MailError as error:
        yield Finding("directory", "problem", f"{error.public} ({error.reason})" if error.reason else error.public)
    yield _disk(settings)
    if settings.redis_url:
        yield _redis(settings.redis_url)
    yield from _certificate(settings, now)
    yield from _ports(settings)


def _server_key(settings: Settings, server_key: bytes) -> Finding:
    places = [(settings.queue_folder, QUEUED)]
    if settings.role == "primary":  # a secondary may see the folder of a primary, which has a key of its own
        places.append((settings.mailbox_folder, TEMPORARY))
    for folder, waiting in places:
        if foreign(folder, server_key, waiting):
            return Finding("server key", "problem", refusal(folder, settings.server_key_file))
    return Finding("server key", "ok", str(settings.server_key_file))


def _directory(store: Store) -> Iterator[Finding]:
    domains, aliases = store.accounts.domains(), store.accounts.aliases()
    detail = f"{_count(len(domains), 'domain')}, {_count(len(aliases), 'alias')}"
    yield Finding("directory", "ok" if aliases else "note", detail)
    missing = [alias.address for alias in aliases if alias.mailbox_id is None]
    if missing:
        yield Finding("passwords", "note", f"no password yet, so no mail is taken: {', '.join(missing[:5])}{' …' if missing[5:] else ''}")


def _files(store: Store) -> Iterator[Finding]:
    sentences = store.accounts.check()
    known = set(store.files.ids())
    for path in sorted(store.files.directory.iterdir()):
        if path.suffix == ".sqlite":
            if header(str(path)).startswith(PLAIN_HEADER):
                sentences.append(f"{path.name} is not encrypted; move it away and look where it came from")
            if path.stem.endswith("-tmp") and path.stem.removesuffix("-tmp") not in known:
                sentences.append(f"{path.name} holds waiting mail of no mailbox; it can be deleted")
        if "-tmp.damaged-" in path.name and not path.name.endswith(("-wal", "-shm")):
            sentences.append(f"{path.name} was damaged and may hold mail that was accepted; the log says what was saved from it")
        if "-tmp.saving-" in path.name and not path.name.endswith(("-wal", "-shm")):
            sentences.append(f"{path.name} was damaged; what can be read of it moves in at the owner's next login")
        if path.stat().st_mode & 0o077:
            sentences.append(f"{path.name} can be read by others; run: chmod 600 {path}")
    for sentence in sentences:
        yield Finding("mailbox files", "problem", sentence)
    if not sentences:
        yield Finding("mailbox files", "ok", _count(len(known), "mailbox"))


def _queues(settings: Settings, known: Set[str | None]) -> Iterator[Finding]:
    """Files with mail for other primaries: damaged ones, and those that nobody will take any more.

    :param known: the ids of all mailboxes.
    """
    for path in sorted(settings.queue_folder.glob("*/*.sqlite")):
        if path.stem not in known:
            detail = f"{path.parent.name}/{path.name} holds mail of a mailbox that was removed; delete it while the server is stopped"
            yield Finding("queue files", "note", detail)
    for path in sorted(settings.queue_folder.glob("*/*.*-*")):
        if path.name.endswith(("-wal", "-shm")):
            continue
        name = f"{path.parent.name}/{path.name}"
        if ".damaged-" in path.name:
            detail = f"{name} was damaged and may hold mail that was accepted; the log says what was saved from it"
            yield Finding("queue files", "problem", detail)
        if ".saving-" in path.name:
            yield Finding("queue files", "problem", f"{name} was damaged; what can be read of it is handed over to its primary")


def _waiting(settings: Settings, store: Store) -> Iterator[Finding]:
    """Messages that a merge could not store, and files that nobody can look into."""
    names = {alias.mailbox_id: alias.address for alias in store.accounts.aliases()}
    for found in look(settings, store.server_key):
        owner = names.get(found.mailbox_id, "nobody")
        if found.peeked is None:
            why = "it is being written just now, or was open when a server was killed, or is damaged"
            yield Finding("waiting mail", "note", f"{found.path.name} of {owner} could not be looked into: {why}")
        elif found.peeked.refused:
            detail = f"{found.path.name} of {owner}: {_count(found.peeked.refused, 'message')} set aside, because storing failed"
            yield Finding("waiting mail", "problem", f"{detail}; the log says why, and it is tried again")


def _link(settings: Settings, server_key: bytes) -> Iterator[Finding]:
    """What links to other boxes need."""
    secrets: list[bytes] = []
    try:
        secrets = link_secrets(settings, server_key)[:-1]
    except MailError as error:
        yield Finding("link token", "problem", error.public)
    else:
        if len(secrets) > 1:
            yield Finding("link token", "note", f"{len(secrets)} are accepted; when all boxes have the newest, forget the others")
        else:
            yield Finding("link token", "ok", str(settings.link_secret_file))
    authority = settings.link_authority_file
    if authority is not None:
        try:
            found = len(x509.load_pem_x509_certificates(authority.read_bytes()))
        except (OSError, ValueError) as error:
            yield Finding("link authority", "problem", f"{authority}: {error}")
            return
        yield Finding("link authority", "ok", f"{_count(found, 'certificate')} in {authority}")
    if secrets:
        yield from _primaries(settings, secrets)


def _disk(settings: Settings) -> Finding:
    """Room for mail."""
    try:
        found = os.statvfs(settings.data_folder)
    except OSError as error:
        return Finding("disk", "problem", f"{settings.data_folder}: {error.strerror}")
    free = found.f_bavail * found.f_frsize
    where = f"{free // 2**20:,} MiB are free in {settings.data_folder}"
    if free < 2 * settings.message_size_limit:
        return Finding("disk", "problem", f"{where}: too little for large messages, and soon for all; make room")
    return Finding("disk", "ok", where)


def _redis(url: str) -> Finding:
    """Whoever counts for all boxes."""
    parts = urlsplit(url)
    name = f"{parts.hostname}:{parts.port or 6379}"
    if greet(url):
        return Finding("redis", "ok", name)
    return Finding("redis", "away", f"{name} does not answer, or refuses the password in redis_url; each box counts for itself meanwhile")


def _primaries(settings: Settings, secrets: Sequence[bytes]) -> Iterator[Finding]:
    """The primaries that this box has links to: each is called, as the server does it."""
    for location, url in settings.elsewhere().items():
        name = f"link to {location or urlsplit(url).netloc}"
        try:
            peer, found = meet(settings, url, secrets)
            if location and found not in ("", location):
                yield Finding(name, "problem", f"{url}: {peer} is the primary of the location {found}; correct that, or primaries")
            else:
                yield Finding(name, "ok", f"{url}: {peer}")
        except PrimaryAway as error:  # it may be meant to be down
            yield Finding(name, "away", f"{url}: {error.public}: {error.reason}")
        except MailError as error:
            yield Finding(name, "problem", f"{url}: {error.public}")


def _certificate(settings: Settings, now: datetime.datetime) -> Iterator[Finding]:
    try:
        ServerTLS(settings.certificate_file, settings.certificate_key_file, settings.tls_minimum)
        days = days_left(settings.certificate_file, now)
        exposed = readable_by_others(settings.certificate_key_file)
    except MailError as error:
        yield Finding("certificate", "problem", error.public)
        return
    except (OSError, ValueError) as error:
        yield Finding("certificate", "problem", f"{settings.certificate_file}: {error}")
        return
    if days < 0:
        yield Finding("certificate", "problem", f"it ended {-days} days ago; renew it, then send the server a SIGHUP")
    elif days < RENEW_DAYS:
        yield Finding("certificate", "problem", f"it ends in {days} days; renew it, then send the server a SIGHUP")
    else:
        yield Finding("certificate", "ok", f"valid for {days} more days")
    if exposed:
        yield Finding("certificate", "problem", f"everybody can read its key; run: chmod o-rwx {settings.certificate_key_file}")


def _ports(settings: Settings) -> Iterator[Finding]:
    for door, port in settings.ports().items():
        for interface in settings.interfaces:
            name = f"port {port} ({door})"
            try:
                bound = bind(interface, port)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    yield Finding(name, "note", f"{interface}: in use; that is right while the server runs")
                elif error.errno == errno.EACCES:
                    yield Finding(name, "note", f"{interface}: this user may not try it; the server needs CAP_NET_BIND_SERVICE")
                else:
                    yield Finding(name, "problem", f"{interface}: {os.strerror(error.errno or 0)}")
                continue
            if bound is not None:
                bound.close()
                yield Finding(name, "ok", f"{interface}: free")


def _count(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith(("s", "x")) else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"
