"""Mail that waits for its absent owner.

Beside the mailbox file ``<id>.sqlite`` lies ``<id>-tmp.sqlite``, only while there is something in it.  Its outside is encrypted with a key
that comes from the server key, so that a thief of the disk does not even learn how much mail waits; each row is sealed to
the mailbox's public key besides, so that nobody who has the server's keys opens it either.  Who has them learns the number of messages,
their sizes and the order in which they came.

Invariants:

* :meth:`~fe_twisted.storage.spool.spool.Spool.add` returns only when the row is durable, with the file and its directory entry;
* a row is removed only by :meth:`~fe_twisted.storage.spool.spool.Spool.remove`, which the merge calls after its own commit;
* a file is unlinked only when it is empty, after a checkpoint, its WAL before itself: so a crash never leaves a WAL that a later file of
  the same name would take for its own;
* a file that cannot be read is moved aside and never deleted.

One process owns the folder (the primary).  The lock order is: the mailbox's lock, then its writer's queue.
"""
