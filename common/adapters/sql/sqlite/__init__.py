"""Run store, bus, logs and credentials in one SQLite file: the embedded mode.

One file, so that a transition and its messages commit in one transaction.
"""
