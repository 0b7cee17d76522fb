"""Mail in and out, measured: acceptance, merge, login, reading, memory; ``python -m bench.mail``."""
