"""From task to batch: episodes are played against the replicas and become training samples. Loads no torch."""
