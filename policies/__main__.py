"""The policy pack: the only place that constructs it, so that rules can be imported and tested."""

from pulumi_policy import PolicyPack
from rules import POLICIES

PolicyPack("nestlab", policies=POLICIES)
