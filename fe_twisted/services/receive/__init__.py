"""What happens to a message that another mail server brings: who takes it, whether it loops, and how it is put into mailboxes.

:mod:`.receive` decides; :mod:`.reasons` names every decision for the log.
"""
