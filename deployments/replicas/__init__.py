"""Serve deployments around an engine."""
