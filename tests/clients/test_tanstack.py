"""TanStack: the durable transport under ChatClient, unmodified, in one tab and in several."""

import pytest

from tests.clients.visitor import Visitor, assert_grew, stored, texts, words

BRISK = "Say words=40 delay=5"
SLOW = "Say words=80 delay=50"


def assert_at_rest(tab: dict) -> None:
    assert (tab["loading"], tab["generating"], tab["errors"]) == (False, False, [])
    assert tab["connection"] == "connected"


def test_the_first_answer_comes_without_a_refresh(visitor: Visitor, conversation: str):
    (tab,) = visitor.drive("tanstack_tabs", conversation, prompts=[BRISK])["tabs"]
    assert texts(tab["messages"]) == [("user", BRISK), ("assistant", words(40))]
    assert (tab["status"], tab["terminals"]) == ("ready", ["RUN_FINISHED"])
    assert_at_rest(tab)
    assert_grew(tab)
    assert visitor.settled(conversation) == stored(tab["messages"])


@pytest.mark.parametrize("hydrate", [False, True])
def test_a_second_tab_sees_it_live(visitor: Visitor, conversation: str, hydrate: bool):
    first, second = visitor.drive(
        "tanstack_tabs", conversation, prompts=[BRISK, "And words=3"], tabs=2, hydrate=hydrate
    )["tabs"]
    assert first["messages"] == second["messages"]
    assert texts(second["messages"]) == [
        ("user", BRISK),
        ("assistant", words(40)),
        ("user", "And words=3"),
        ("assistant", words(3)),
    ]
    for tab in (first, second):
        assert tab["terminals"] == ["RUN_FINISHED", "RUN_FINISHED"]
        assert_at_rest(tab)
        assert_grew(tab)
    assert visitor.settled(conversation) == stored(second["messages"])


def test_an_existing_chat_comes_as_a_snapshot_or_by_hydration(visitor: Visitor, conversation: str):
    (first,) = visitor.drive("tanstack_tabs", conversation, prompts=[BRISK])["tabs"]
    visitor.settled(conversation)
    for hydrate in (False, True):
        (tab,) = visitor.drive("tanstack_tabs", conversation, hydrate=hydrate)["tabs"]
        assert tab["messages"] == first["messages"]
        assert tab["terminals"] == []


@pytest.mark.parametrize("hydrate", [False, True])
def test_a_chat_goes_on_where_another_tab_left_it(visitor: Visitor, conversation: str, hydrate: bool):
    visitor.drive("tanstack_tabs", conversation, prompts=[BRISK])
    (tab,) = visitor.drive("tanstack_tabs", conversation, prompts=["Then words=30 delay=5"], hydrate=hydrate)[
        "tabs"
    ]
    assert texts(tab["messages"]) == [
        ("user", BRISK),
        ("assistant", words(40)),
        ("user", "Then words=30 delay=5"),
        ("assistant", words(30)),
    ]
    assert_grew(tab)
    assert visitor.settled(conversation) == stored(tab["messages"])
    assert visitor.counts(conversation) == {"runs": 2, "echoes": 2, "terminals": 2}


@pytest.mark.parametrize("hydrate", [False, True])
def test_who_leaves_in_the_middle_comes_back_to_all_of_it(visitor: Visitor, conversation: str, hydrate: bool):
    left = visitor.drive("tanstack_leave", conversation, prompt=SLOW, after=5)
    back = visitor.drive("tanstack_return", conversation, hydrate=hydrate)
    assert words(80).startswith(left["messages"][-1]["text"])
    assert texts(back["messages"]) == [("user", SLOW), ("assistant", words(80))]
    assert back["first"]["answer"] != words(80), "It came back too late to show anything."
    assert_grew(back)
    assert_at_rest(back)
    assert visitor.settled(conversation) == stored(back["messages"])
    assert visitor.counts(conversation) == {"runs": 1, "echoes": 1, "terminals": 1}


def test_hydration_in_the_middle_names_the_run_and_holds_only_what_is_finished(
    visitor: Visitor, conversation: str
):
    visitor.drive("tanstack_leave", conversation, prompt=SLOW, after=5)
    back = visitor.drive("tanstack_return", conversation, hydrate=True)
    seed = back["first"]["seed"]
    assert [message["role"] for message in seed["messages"]] == ["user"]
    assert seed["activeRun"]["runId"]


def test_reload_answers_again_and_echoes_nothing(visitor: Visitor, conversation: str):
    first, second = visitor.drive("tanstack_tabs", conversation, prompts=[BRISK], tabs=2, reload=True)["tabs"]
    for tab in (first, second):
        assert texts(tab["messages"]) == [("user", BRISK), ("assistant", words(40))]
        assert_at_rest(tab)
        assert tab["terminals"] == ["RUN_FINISHED", "RUN_FINISHED"]
    assert first["messages"] == second["messages"]
    assert visitor.settled(conversation) == stored(second["messages"])
    assert visitor.counts(conversation) == {"runs": 2, "echoes": 1, "terminals": 2}
    (late,) = visitor.drive("tanstack_tabs", conversation)["tabs"]
    assert late["messages"] == second["messages"]


def test_the_same_message_twice_at_once_makes_one_run(visitor: Visitor, conversation: str):
    result = visitor.drive("twice", conversation, prompt=BRISK, by="tanstack")
    assert texts(result["tab"]["messages"]) == [("user", BRISK), ("assistant", words(40))]
    assert visitor.settled(conversation) == stored(result["tab"]["messages"])
    assert visitor.counts(conversation) == {"runs": 1, "echoes": 1, "terminals": 1}


def test_daphne_serves_it_too(daphne: str, arrive):
    visitor = arrive(daphne)
    conversation = visitor.begin()
    first, second = visitor.drive("tanstack_tabs", conversation, prompts=[BRISK], tabs=2)["tabs"]
    assert first["messages"] == second["messages"]
    assert texts(second["messages"]) == [("user", BRISK), ("assistant", words(40))]
    assert_grew(second)
    assert_at_rest(second)
