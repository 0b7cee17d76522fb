"""Everything an administrator, or an owner, does to domains, aliases and passwords: once, for the command line now, API and web later.

Order of steps where files and directory change together, so that a crash in between never loses mail:

* making a mailbox: the file is durable first, then the directory names it;
* discarding or removing: the directory forgets it first, then the file goes.

What a crash can leave is a file that nobody names.  It is unreadable, harmless, and reported by :meth:`Accounts.check`.
"""
