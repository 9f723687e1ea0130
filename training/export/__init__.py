"""Episodes as datasets of other libraries: Hugging Face datasets, and LeRobot's for robots."""
