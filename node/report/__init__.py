"""Assessment -> Structured Report and Secondary Capture, rendered once and kept (DESIGN section 6)."""
