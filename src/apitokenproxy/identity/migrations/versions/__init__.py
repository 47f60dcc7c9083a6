"""The schema of an SQL store, revision by revision."""
