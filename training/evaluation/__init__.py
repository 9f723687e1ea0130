"""What a policy does in held-out situations, and whether sampler and learner agree on it."""
