"""protocols/mime"""
