"""Secrets that are files: the server key, and whatever else the settings name.

A secret file is a regular file that belongs to the user of the process (or to root) and that nobody else can read; anything else is
refused before a single octet is used, because a secret that somebody else could read is not one any more.
"""
