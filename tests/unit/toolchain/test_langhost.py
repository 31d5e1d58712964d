"""What the language host says of itself before pulumi is imported."""

from __future__ import annotations

import platform
import sys

from pulumi.runtime.proto import language_pb2, plugin_pb2

from toolchain.bootstrap import pins
from toolchain.engine import langhost


def test_it_says_of_itself_what_the_generated_messages_would() -> None:
    told = plugin_pb2.PluginInfo.FromString(langhost.message(*langhost.ABOUT["GetPluginInfo"]))
    assert told == plugin_pb2.PluginInfo(version=pins.PULUMI)
    about = language_pb2.AboutResponse.FromString(langhost.message(*langhost.ABOUT["About"]))
    assert about == language_pb2.AboutResponse(
        executable=sys.executable, version=platform.python_version()
    )


def test_texts_of_any_length_and_letters_arrive() -> None:
    for length in (0, 1, 127, 128, 16383, 16384, 70000):
        text = "ü" * length
        made = langhost.message(text, "x")
        wanted = language_pb2.AboutResponse(executable=text, version="x")
        assert language_pb2.AboutResponse.FromString(made) == wanted
