"""Who is calling: client tokens (format, authority, stores), the host application's own session."""
