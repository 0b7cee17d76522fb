"""The link between a primary and a secondary, as functions of bytes.

A secondary *calls*, the primary *answers*.  Every WebSocket message holds exactly one frame (:mod:`frames`), a CBOR array of plain values.

1. Both say :class:`~fe_twisted.protocols.cluster.frames.Hello`: versions, role, name, capabilities and a nonce.
2. Both prove that they have the link secret: an HMAC over everything said so far and the TLS channel it was said in (:mod:`handshake`).
   Nothing is answered to anybody who has not.  From the same come fresh keys that mailbox keys are wrapped with (:mod:`keys`).
3. The secondary sends requests, the primary streams the answers; both under credit, counted in octets for each stream (:mod:`streams`), so
   that neither a slow client nor a stopped peer makes the other side buffer.
4. The primary tells of changes that others made (``Notify``), and takes mailboxes back (``Evict``).

Whatever a peer sends that is not as agreed ends the connection with a ``Refuse`` frame that names the reason; a :class:`Refusal` is the
only exception that received bytes can raise.

Values travel inside of requests and answers as :mod:`values` writes them: by type, so nothing that looks like a date or an id is ever taken
for one.
"""
