"""What an organisation's costs say about a month: read from the views, shown on a terminal or as a page."""
