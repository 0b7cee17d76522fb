"""SMTP as functions of bytes (RFC 5321 and its extensions): nothing here knows a socket, a clock or a recipient.

* :mod:`.parse` cuts what a client sends into commands and message content;
* :mod:`.address` reads the arguments of MAIL and RCPT;
* :mod:`.replies` writes what the server answers, and is the one mapping from errors to reply codes;
* :mod:`.trace` writes ``Return-Path``, ``Delivered-To`` and ``Received``.
"""
