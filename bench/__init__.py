"""Measurements of this server beside Debian's Postfix and Dovecot, started by ``make bench`` (``python -m bench``).

Every benchmark starts the servers itself: on loopback, in a temporary folder, ours as a user starts it.  Peers that are not installed are
left out.  The load comes from a process of its own.  Runs of the candidates take turns and medians are compared, since the machines that
this runs on are shared: what counts is the ratio within a run.
"""
