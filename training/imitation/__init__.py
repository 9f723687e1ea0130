"""Policies to start from: a tiny model made on the spot, and supervised fine-tuning on scripted demonstrations."""
