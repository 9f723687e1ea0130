"""One run of GRPO: its loop, the process that runs it, and the driver around both."""
