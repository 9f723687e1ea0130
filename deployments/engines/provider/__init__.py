"""Vision-language policies behind an API (OpenAI, Anthropic, Gemini and others), called through litellm."""
