"""Golden files for every tier: expected text is written by ``--update-golden`` and read as a diff."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.support.allowed import write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite the expected texts beside the cases; read the change as a diff",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file together, as they may share a lab; those that share nothing go to whoever is free.

    A worker of ``--dist loadgroup`` runs all tests of a group.
    """
    for item in items:
        if item.get_closest_marker("spread") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


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
