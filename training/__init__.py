"""Training: rollouts against served policies, advantages and losses, the learner, and the commands around them."""
