"""Ray Tune over whole runs."""
