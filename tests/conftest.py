"""Golden files for every tier: expected text is written by ``--update-golden`` and read as a diff."""

from __future__ import annotations

import functools
import os
import re
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from xdist.scheduler.loadscope import LoadScopeScheduling

from tests.support.allowed import write
from toolchain.bootstrap import ui
from toolchain.bootstrap.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from xdist.remote import Producer


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite the expected texts beside the cases; read the change as a diff",
    )


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """Give ``--dist loadscope`` units of our own; see `Units`."""
    return Units(config, log) if config.getvalue("dist") == "loadscope" else None


class Units(LoadScopeScheduling):  # type: ignore[misc]
    """Has the tests of a file on one worker, as they may share a lab; those marked ``spread`` go to whoever is free."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return nodeid if _is_spread(file) else file


@functools.cache
def _is_spread(file: str) -> bool:
    """Whether a file marks all its tests: read as text, as who hands tests out imports none."""
    marks = re.search(r"^pytestmark = (?:\[[^]]*\]|.*$)", (ROOT / file).read_text(), re.MULTILINE)
    return marks is not None and "pytest.mark.spread" in marks[0]


@pytest.fixture(autouse=True)
def _speaks() -> Iterator[None]:
    """Whoever calls the command in a test leaves how messages call it to the next one as it was."""
    yield
    ui.speak("make")


@pytest.fixture(autouse=True, scope="session")
def _hears() -> None:
    """A shell's background job ignores SIGINT, and so would all that tests start from it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _allowed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a stack may name in tests does not depend on who runs them."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("NESTLAB_ALLOW", str(write(tmp_path_factory.mktemp("allow"))))
        yield


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where a test was skipped and none may be, as in continuous integration."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter and reporter.stats.get("skipped") and os.environ.get("NESTLAB_NO_SKIPS"):
        reporter.write_line("NESTLAB_NO_SKIPS: what tests need has to be there", red=True)
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compare a text with a file, whole; rewrite the file instead under ``--update-golden``."""

    def compare(file: Path, text: str) -> None:
        if request.config.getoption("--update-golden"):
            file.write_text(text)
        assert file.is_file(), f"{file} is missing: run pytest --update-golden and read it"
        assert text == file.read_text(), f"{file.name} differs: see --update-golden"

    return compare


# The same examples in every run: what fails in continuous integration fails here too. To look for new
# ones: NESTLAB_EXAMPLES=new python3 -m toolchain test unit
settings.register_profile("steady", derandomize=True)
if os.environ.get("NESTLAB_EXAMPLES") != "new":
    settings.load_profile("steady")
