"""Rotation of upstream secrets: candidate, current and previous versions, and what is known of them."""
