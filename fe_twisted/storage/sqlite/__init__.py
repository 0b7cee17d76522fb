"""Encrypted SQLite files: how they are opened, upgraded and written to.

Everything that opens a SQLite3 Multiple Ciphers file goes through :func:`fe_twisted.storage.sqlite.connect.connect`, so that the pragmas
are in one place and in the one right order, and everything that has to be durable goes through
:class:`fe_twisted.storage.sqlite.writer.Writer`, so that concurrent writes share one fsync.

Rules that hold for every file opened here:

* the journal is a WAL, ``synchronous`` is FULL: what was committed survives a power cut;
* the file and its ``-wal`` and ``-shm`` are readable by the owner only;
* nobody may open and close one of these files with :func:`open` while a connection in this process has it open: closing *any* descriptor
  of a file drops all POSIX locks that the process has on it, and another process would then take the WAL away from under us.  Use
  :func:`fe_twisted.storage.sqlite.connect.header`, or the backup API.
"""
