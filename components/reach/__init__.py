"""What happens on a machine once it answers: waiting for it, and its own command line over SSH."""
