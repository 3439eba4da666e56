"""Reports: events, and where they go."""
