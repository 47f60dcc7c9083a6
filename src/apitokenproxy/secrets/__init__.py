"""Where secrets are kept: one provider a file, one cache before them all."""
