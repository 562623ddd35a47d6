"""Run store, run logs and records in SQL: one text for SQLite (embedded) and PostgreSQL, and two thin dialects."""
