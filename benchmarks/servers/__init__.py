"""The servers that rayward is compared with, each a process of its own, and what both sides share: policy and clients."""
