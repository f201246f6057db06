"""Objects: what the S3 daemon serves, behind one protocol (``base``) with several backends."""
