"""Our environments as other libraries' environments, and theirs as ours."""
