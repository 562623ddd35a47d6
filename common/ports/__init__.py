"""What the engine needs from the world, as promises. Adapters implement them; nothing here imports one."""
