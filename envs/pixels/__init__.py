"""Environments that are seen as pictures."""
