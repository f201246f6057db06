"""The durable queue in front of remote stores: what was accepted is delivered, whatever happens in between."""
