"""Weight versions: the verified store that replicas pull from, where it is kept, and how a learner publishes."""
