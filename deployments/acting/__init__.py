"""One observation in, one action out, whatever transport carried it: decoding, prompts, parsing, safety, sessions."""
