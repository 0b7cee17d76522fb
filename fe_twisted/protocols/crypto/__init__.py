"""protocols/crypto"""
