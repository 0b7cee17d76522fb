"""Who may open which mailbox.

:class:`~fe_twisted.services.login.authenticate.Login` tries a password on the key slots of an alias; what opens is the mailbox key.
:class:`~fe_twisted.services.login.throttle.Throttle` remembers failures, so that guessing gets slower and then stops.

A failure looks the same from outside whatever its cause: one text, and an answer after a time that depends on the number of
earlier failures and not on the work done.
"""
