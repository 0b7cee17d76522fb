"""storage/spool"""
