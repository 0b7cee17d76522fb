"""The IMAP4rev1 server (RFC 3501): one mailbox, many sessions, each with its own view.

* :mod:`~fe_twisted.servers.imap.protocol` moves bytes: one command at a time, TLS, timeouts, backpressure.
* :mod:`~fe_twisted.servers.imap.session` is what a client has become: its state, its mailbox, its selected folder.
* :mod:`~fe_twisted.servers.imap.table` says which command is allowed in which state and who carries it out; a command is a coroutine
  ``(session, command) -> Reply`` in the file that has its name.
* :mod:`~fe_twisted.servers.imap.view` is what the client has been told of the selected folder: sequence numbers exist nowhere else.

It is no subclass of ``twisted.mail.imap4.IMAP4Server``: only 16 % of that could be used, and each of its known bugs (STARTTLS injection,
endless literals, commands that overtake each other, SEARCH, partial FETCH) sits in what would have to be replaced anyway.

Invariants: commands of a connection never overlap and are answered in the order sent; EXISTS never shrinks without an EXPUNGE; EXPUNGE is
never sent while FETCH, STORE or SEARCH without UID is carried out (RFC 3501 section 7.4.1); a mailbox is given back exactly once,
after its last command has ended.
"""
