"""The command line. It uses the same HTTP function as an app."""
