"""One comment, whoever else has written on the pull request, and nothing where it can't be ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from review import posting
from review.markdown import MARKER
from tests.support.github import TOKEN, GitHub

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub().serving() as running:
        yield running


def to(github: GitHub, token: str = TOKEN) -> posting.GitHub:
    return posting.GitHub("o/r", token, api=github.api)


def test_a_second_run_updates_the_first_ones_comment(github: GitHub) -> None:
    assert to(github).post(7, f"{MARKER}\none") == "made"
    assert to(github).post(7, f"{MARKER}\ntwo") == "updated"
    assert to(github).post(7, f"{MARKER}\ntwo") == "as it was"
    assert [each["body"] for each in github.comments] == [f"{MARKER}\ntwo"]


def test_it_is_found_behind_many_pages(github: GitHub) -> None:
    for number in range(230):
        github.say("somebody", f"word {number}")
    github.say(github.robot, f"{MARKER}\none")
    assert to(github).post(7, f"{MARKER}\ntwo") == "updated"
    assert len(github.comments) == 231


def test_a_strangers_marker_and_our_other_comments_are_left_alone(github: GitHub) -> None:
    github.say("mallory", f"{MARKER}\nI am the bot")
    github.say(github.robot, f"a quote: {MARKER}")
    assert to(github).post(7, f"{MARKER}\none") == "made"
    assert [each["body"][-3:] for each in github.comments] == ["bot", "-->", "one"]


def test_a_report_of_another_commit_is_not_posted(github: GitHub) -> None:
    """Its number is the first job's word; who wrote that wanted it on somebody else's pull request."""
    with pytest.raises(
        posting.NotPosted, match=r"is at c0ffee, and the report was made of abad1dea"
    ):
        to(github).post(7, MARKER, commit="abad1dea")
    assert github.comments == []
    assert to(github).post(7, MARKER, commit="c0ffee") == "made"


def test_a_refusal_is_told_without_the_token(github: GitHub) -> None:
    with pytest.raises(posting.NotPosted, match=r"401 'Bad credentials'") as refused:
        to(github, "another").post(7, MARKER)
    assert "another" not in str(refused.value)


def test_a_redirect_is_not_followed(github: GitHub) -> None:
    with GitHub().serving() as elsewhere:
        github.moved = f"{elsewhere.api}/repos/o/r/issues/7/comments"
        with pytest.raises(posting.NotPosted, match="307"):
            to(github).post(7, MARKER)
        assert elsewhere.asked == []


def test_a_token_is_not_sent_in_clear() -> None:
    with pytest.raises(posting.NotPosted, match="no https address"):
        posting.GitHub("o/r", TOKEN, api="http://api.example.test")
