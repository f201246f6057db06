"""A remote S3: credentials, warm connections, requests with retries, and what their heads and bodies mean."""
