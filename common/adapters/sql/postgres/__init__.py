"""Plans, run store, logs and records in PostgreSQL: Supabase, or any other.

The driver is imported on first use only: it takes a fifth of a second, which a cold start must not pay.
"""
