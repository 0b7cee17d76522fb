"""The directory as SQL, embedded or PostgreSQL, behind :mod:`fe_twisted.storage.directory.api`.

* :mod:`schema`: the tables;
* :mod:`migrations`: how a database of any earlier version becomes one of this version (Alembic);
* :mod:`embedded`: the default, one SQLCipher file under a key derived from the server key, in WAL mode with ``synchronous=FULL``;
* :mod:`sql`: :class:`SqlDirectory` and :func:`open_directory`;
* :mod:`faults`: database errors become errors of :mod:`fe_twisted.base.errors`, and nothing else crosses the boundary;
* :mod:`lookup`: what servers ask, asynchronous.

Invariants: every method is one transaction.  A write takes the database's write lock at its start (``BEGIN IMMEDIATE``; on PostgreSQL
the row of ``meta``), so that a server and the command line can work on one database at the same time, and raises the generation
by one.  An address is kept in normal form only.  Row ids are never used again, so an old id cannot mean something new.
"""
