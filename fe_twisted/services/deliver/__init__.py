"""What becomes of a message for a local recipient.

Its owner is connected: :class:`~fe_twisted.services.deliver.deliver.Deliver` appends it to the open mailbox.  Otherwise, or if that
fails, it is sealed into the temporary mailbox, and :class:`~fe_twisted.services.deliver.merge.Merge` moves it in when the owner comes.

A delivery id goes with the message through both, and a mailbox stores an id once only.  So every step may be repeated, and each is
repeated until the next one is durable: nothing is lost and nothing doubled, wherever the process dies.
"""
