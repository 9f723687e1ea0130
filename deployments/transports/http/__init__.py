"""HTTP: the ingress with its routes, bodies in, answers out."""
