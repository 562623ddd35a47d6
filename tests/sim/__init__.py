"""A deterministic simulation that tries to break the real core and the real engine; only the ports are simulated."""
