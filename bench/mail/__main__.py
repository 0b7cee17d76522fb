"""``python -m bench.mail``: see :mod:`bench.mail.run`."""

from bench.mail.run import main

main()
