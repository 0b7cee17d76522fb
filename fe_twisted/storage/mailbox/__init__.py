"""One alias's mailbox: one SQLite file, encrypted as a whole with the mailbox key.

On disk, beside each other and named by nothing but an ObjectID::

    <id>.sqlite        the mailbox (plus -wal and -shm while it is open)
    <id>-tmp.sqlite    mail that waits for its owner, sealed (storage/spool)

Invariants, checked by :mod:`fe_twisted.storage.mailbox.check`:

* a message's content is stored once however many folders it is in, and an attachment once however many messages carry it;
  what FETCH returns is byte for byte what was received (compared with its SHA-256 when it is stored);
* ``entries.id`` is ``folder id * 2**32 + UID``, so a folder's messages lie side by side in UID order;
* UIDNEXT, MODSEQ, the counters and the expunge log change in the transaction of the change itself;
* content that no folder refers to any more is listed in ``orphans`` and removed a little later.

One process at a time has a mailbox open for writing.  It writes through one connection in a thread (storage/sqlite/writer.py puts
concurrent changes into one commit, and a commit is on the disk before anybody is told), reads through a second one in the reactor, and
scans through a third in a thread.  WAL gives each of them a consistent view.
"""
