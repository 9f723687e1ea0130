"""Wire types: what travels between a client and a policy. No ray, torch, vllm or grpc."""
