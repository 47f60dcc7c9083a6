"""How a secret becomes a credential: one kind a file."""
