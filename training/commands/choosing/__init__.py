"""Short options and what they choose: a configuration, a launcher's file, a training script of a user."""
