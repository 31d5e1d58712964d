"""Pull requests: what another branch's stack files would change, made without a secret or a host, as one comment."""
