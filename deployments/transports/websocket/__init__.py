"""WebSocket: openpi's msgpack protocol for robots, and a stream of JSON for games."""
