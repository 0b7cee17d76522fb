"""servers/imap"""
