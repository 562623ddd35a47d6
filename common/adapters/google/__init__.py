"""Store and bus on Google Cloud (Firestore, Pub/Sub): the cloud mode, and the local one on Google's own emulators.

Google's clients are imported on first use only: they take most of a second, which a cold start must not pay.
"""
