"""Typed configuration of rayward: strict pydantic models and the YAML files they read. Imports nothing first-party."""
