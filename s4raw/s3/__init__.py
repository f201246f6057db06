"""The S3 daemon: requests of S3 clients, answered out of a backend of ``objects``."""
