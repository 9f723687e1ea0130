"""Environments: text games with one small contract (`base.Env`). Imports only the standard library and numpy."""
