"""services/receive"""
