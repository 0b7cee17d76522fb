"""services/deliver"""
