"""What a run checks of itself while it goes on: numbers in, an alarm out. Pure."""
