"""The secondary's end of the link to a primary.

:class:`~fe_twisted.clients.link.conversation.Conversation` is one connection, and :class:`~fe_twisted.clients.link.link.Link`
makes it again whenever it is lost, and repeats what was asked and not yet answered.  :mod:`websocket` puts both on Autobahn, over a unix
socket or TLS.

A question may be repeated if it changes nothing, or if it has an idempotency key: then the primary does it once and answers it as often as
it is asked.  While there is no connection, a question waits; after the link's patience it fails with
:class:`~fe_twisted.base.errors.PrimaryAway`.
"""
