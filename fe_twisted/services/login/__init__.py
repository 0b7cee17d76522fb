"""services/login"""
