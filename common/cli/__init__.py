"""The command line, over the same HTTP function that an app calls."""
