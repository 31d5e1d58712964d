"""The policy pack: the only place that constructs it, so that rules can be imported and tested."""

from nested_cpu import NESTED_CPU
from pulumi_policy import PolicyPack

PolicyPack("nestlab", policies=[NESTED_CPU])
