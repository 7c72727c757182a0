"""The plugins that come with the hub."""
