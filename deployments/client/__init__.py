"""How to call a policy: over HTTP from anywhere, or through a Serve handle inside the cluster."""
