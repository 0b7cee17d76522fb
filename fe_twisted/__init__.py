"""A self-hosted mail service: one encrypted SQLite file per alias, on Twisted.

An import may only point down this list (checked by import-linter)::

    app       puts the parts together; the only place that knows the reactor
    servers   answer clients: imap, smtp
    services  decide: receive, deliver, login, accounts
    storage   keeps everything on disk, encrypted: directory, mailbox, spool, vault, sqlite
    clients   call out
    protocols compute: the standards as functions of bytes
    base      names: settings, errors, ids, addresses, limits, log
"""

__version__ = "0.1.0"
