"""The component package: the engine starts this folder by what PulumiPlugin.yaml says."""

from components.package.served import serve

serve()
