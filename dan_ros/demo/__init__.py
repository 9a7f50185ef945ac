"""The demo: a sample camera, and a subscriber that shows what the node publishes."""
