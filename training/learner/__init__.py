"""One rank's model and optimizer: torch, no Ray."""
