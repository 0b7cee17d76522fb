"""The SMTP doors: :mod:`.mx` takes mail from other servers; :mod:`.limits` says how much of it."""
