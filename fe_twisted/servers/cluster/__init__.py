"""The primary's end of the link: accepts secondaries, and streams them the answers of the host.

:class:`~fe_twisted.servers.cluster.session.Session` is one connection, without any network; :mod:`websocket` puts it on Autobahn, over a
unix socket (whose other end must be this user) or TLS.
"""
