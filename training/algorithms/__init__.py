"""Pure mathematics of GRPO: advantages, losses, off-policy corrections."""
