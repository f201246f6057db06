"""The S3 face: HTTP, signatures, and the operations of S3 over any backend of ``objects``."""
