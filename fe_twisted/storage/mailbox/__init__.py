"""storage/mailbox"""
