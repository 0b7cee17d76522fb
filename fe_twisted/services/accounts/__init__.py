"""services/accounts"""
