"""The labs as a Pulumi component package, for programs in YAML, TypeScript, Go and whatever else there is.

`schema` says what its components take, letter for letter what a stack file has; `served` makes them.
"""
