"""vLLM as an engine: its settings, its OpenAI routes, and the plugin that lets its workers take up weight versions."""
