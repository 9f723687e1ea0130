"""Weight versions: the verified store that replicas pull from, where it is kept, and the learner's side of the transports."""
