r"""Search programs as a session sees them: message numbers, ``*``, ``$`` and ``\Recent`` mean something here only."""

from __future__ import annotations

from collections.abc import Callable

from fe_twisted.base.errors import BadSyntax, UidRequired
from fe_twisted.protocols.imap.commands import Command
from fe_twisted.protocols.imap.ranges import resolve
from fe_twisted.protocols.imap.search import And, Key, Modseq, Not, Or, Recent, Saved, Sequence, Uids, UidSequence
from fe_twisted.servers.imap.view import View


def resolved(key: Key, view: View) -> Key:
    r"""The program with every key that only this session understands replaced by UIDs.

    :raises BadSyntax: ``\Recent`` with IMAP4rev2.
    :raises UidRequired: a message number with UIDONLY.
    """
    match key:
        case And(keys):
            return And(tuple(resolved(inner, view) for inner in keys))
        case Or(left, right):
            return Or(resolved(left, view), resolved(right, view))
        case Not(inner):
            return Not(resolved(inner, view))
        case Sequence(items):
            if view.uid_only:
                raise UidRequired
            return Uids(view.uids.uids(resolve(items, len(view.uids), clamp=True)))
        case UidSequence(items):
            return Uids(view.uids.known(resolve(items, view.uids.last)))
        case Recent():
            if not view.has_recent:  # RFC 9051 appendix E
                raise BadSyntax("RECENT, NEW and OLD are not in IMAP4rev2")
            return Uids(view.recent)
        case Saved():
            return Uids(view.kept())
        case _:
            return key


def has_modseq(key: Key) -> bool:
    """Whether the answer has to name a mod-sequence (RFC 7162 section 3.1.5)."""
    return any_key(key, lambda part: isinstance(part, Modseq))


def names_numbers(command: Command) -> bool:
    """Whether a search program of the command holds message numbers, so that nothing may be renumbered yet (RFC 7162 section 3.2.10.2)."""
    program = getattr(command.arguments, "program", None)
    return program is not None and any_key(program, lambda part: isinstance(part, Sequence))


def any_key(key: Key, test: Callable[[Key], bool]) -> bool:
    """Whether a key in the program passes the test."""
    match key:
        case And(keys):
            return any(any_key(inner, test) for inner in keys)
        case Or(left, right):
            return any_key(left, test) or any_key(right, test)
        case Not(inner):
            return any_key(inner, test)
        case _:
            return test(key)
