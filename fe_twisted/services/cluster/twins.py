"""Whether another primary goes by this one's location: two would each believe that the mailboxes of the other are its own, and lost.

There are three signs, none of which tells for certain which of the two is wrong, and none of which is a reason not to start:

=============================================  ==========================================================================================
sign                                           where it is seen
=============================================  ==========================================================================================
a primary that is linked here says so          :class:`fe_twisted.services.cluster.status.StatusDesk`, at its first report
one that this process is linked to says so     :class:`fe_twisted.services.cluster.status.Reporter`, with the answer to each ping
the directory has mailboxes here without file  :class:`Missing`, at the start and every minute; a disk that was lost looks just like it
=============================================  ==========================================================================================

A mailbox without its file is never made anew by a login or a delivery: those fail, and the other primary has it still.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

from fe_twisted.base import log


class Troubles:
    """What is wrong, told once in the log (``location.wrong``, ``location.over``) and kept for whoever asks how it goes."""

    def __init__(self) -> None:
        self._known: dict[object, str] = {}

    def set(self, sign: object, text: str) -> None:
        """What a sign says now; an empty text is nothing.

        :param sign: whatever has given it, the same each time.
        """
        before = self._known.get(sign, "")
        if text == before:
            return
        self._known.pop(sign, None)
        if text:
            self._known[sign] = text
            log.warning("location.wrong", reason=text)
        else:
            log.event("location.over", reason=before)

    def all(self) -> tuple[str, ...]:
        """Each of them as a sentence, sorted."""
        return tuple(sorted(set(self._known.values())))


class Places(Protocol):
    """What is asked of :class:`fe_twisted.storage.directory.lookup.Lookups`."""

    async def elsewhere(self, location: str) -> dict[str, str]:
        """The locations of all mailboxes that are not at ``location``."""

    async def generation(self) -> int:
        """Another number after each change."""


class Missing:
    """Compares the directory with the folder of the mailboxes.

    :param ids: of all mailboxes whose files are here; it blocks.
    :param run_in_thread: for that.
    """

    def __init__(
        self,
        location: str,
        places: Places,
        ids: Callable[[], Iterable[str]],
        run_in_thread: Callable[..., Awaitable[Any]],
        troubles: Troubles,
    ) -> None:
        self._location = location
        self._places = places
        self._ids = ids
        self._run = run_in_thread
        self._troubles = troubles
        self._generation = -1

    async def look(self) -> None:
        """Look, if the directory has changed since the last time, or something was wrong then.

        :raises fe_twisted.base.errors.MailError: the directory cannot be asked.
        """
        generation = await self._places.generation()
        if generation == self._generation:
            return
        missing = await self._missing()
        if missing:
            # What was removed between the two questions has neither a file nor a row: only what is there still is missing.
            missing &= await self._missing()
        self._troubles.set(self, self._told(missing))
        if not missing:
            self._generation = generation

    async def _missing(self) -> set[str]:
        """Mailboxes that are at this primary and have no file.  A file is made before its row, and comes before it in a move."""
        everywhere = await self._places.elsewhere("")
        found: set[str] = await self._run(self._without_file, everywhere)
        return found

    def _without_file(self, everywhere: Mapping[str, str]) -> set[str]:
        """Blocks: a hundred thousand mailboxes are as many names to read, and to compare."""
        return {mailbox_id for mailbox_id, location in everywhere.items() if location == self._location} - set(self._ids())

    def _told(self, missing: set[str]) -> str:
        if not missing:
            return ""
        number = "1 mailbox" if len(missing) == 1 else f"{len(missing)} mailboxes"
        return (
            f"{number} of the location {self._location} {'has' if len(missing) == 1 else 'have'} no file here, {min(missing)} for one: "
            "another primary has the same location, or the disk was lost; forwardemail check names all"
        )
