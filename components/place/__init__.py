"""What every place shares: the contract, the way into it, how it is installed and what it is ordered."""
