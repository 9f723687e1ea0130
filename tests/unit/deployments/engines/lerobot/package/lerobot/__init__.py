"""Stands in for LeRobot: the few names that the adapter uses, with the same shapes, around one linear layer."""
