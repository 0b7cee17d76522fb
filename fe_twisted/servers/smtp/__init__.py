"""servers/smtp"""
