"""Keys as functions of bytes: no file, no clock.

* :mod:`slots`: a password wraps a mailbox key; opening a slot *is* the password check;
* :mod:`seal`: mail for an absent owner, to the mailbox's public key (HPKE, ML-KEM-768 with X25519);
* :mod:`derive`: the keys that come from the server key, one label each;
* :mod:`memory`: a mailbox key while a session lives.

Where randomness is needed it is an argument whose default is ``os.urandom``: tests pass their own, nothing else does.
"""
