"""Protocol translation only: one subpackage per protocol."""
