"""storage/vault"""
