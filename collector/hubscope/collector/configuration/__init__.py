"""What the collector is told: flags, file and environment, as one typed object, all errors at once."""
