"""The uploader: takes files from programs that must go on, and sees to it that they reach S3."""
