"""As LeRobot's."""
