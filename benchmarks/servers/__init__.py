"""The servers that rayward is compared with, each a process of its own, and the policy and clients of both sides."""
