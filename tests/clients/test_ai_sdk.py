"""AI SDK: the durable transport under the SDK's own AbstractChat, unmodified."""

from tests.clients.visitor import Visitor, assert_grew, stored, texts, words

BRISK = "Say words=40 delay=5"
SLOW = "Say words=80 delay=50"
DONE = [{"finishReason": "stop", "isError": False}]


def test_a_message_is_sent_and_answered_to_the_end(visitor: Visitor, conversation: str):
    chat = visitor.drive("ai_sdk_send", conversation, prompt=BRISK)
    assert texts(chat["messages"]) == [("user", BRISK), ("assistant", words(40))]
    assert (chat["status"], chat["errors"], chat["finishes"]) == ("ready", [], DONE)
    assert_grew(chat)
    assert visitor.settled(conversation) == stored(chat["messages"])


def test_who_leaves_in_the_middle_reconnects_and_then_there_is_nothing_left(
    visitor: Visitor, conversation: str
):
    left = visitor.drive("ai_sdk_send", conversation, prompt=SLOW, after=5)
    back = visitor.drive("ai_sdk_return", conversation)
    assert words(80).startswith(left["messages"][-1]["text"])
    assert texts(back["seed"]) == [("user", SLOW)]
    assert texts(back["messages"]) == [("user", SLOW), ("assistant", words(80))]
    assert (back["status"], back["errors"], back["finishes"]) == ("ready", [], DONE)
    assert_grew(back)
    assert visitor.settled(conversation) == stored(back["messages"])
    assert visitor.drive("ai_sdk_return", conversation)["again"] is None
    assert visitor.counts(conversation) == {"runs": 1, "echoes": 1, "terminals": 1}


def test_reconnecting_to_an_idle_chat_changes_nothing(visitor: Visitor, conversation: str):
    sent = visitor.drive("ai_sdk_send", conversation, prompt=BRISK)
    visitor.settled(conversation)
    back = visitor.drive("ai_sdk_return", conversation)
    assert texts(back["messages"]) == texts(sent["messages"])
    assert (back["status"], back["finishes"], back["again"]) == ("ready", [], None)


def test_regenerate_answers_again_and_echoes_nothing(visitor: Visitor, conversation: str):
    chat = visitor.drive("ai_sdk_send", conversation, prompt=BRISK, regenerate=True)
    assert texts(chat["messages"]) == texts(chat["first"]["messages"])
    assert chat["messages"][-1]["id"] != chat["first"]["messages"][-1]["id"]
    assert chat["errors"] == []
    assert visitor.settled(conversation) == stored(chat["messages"])
    assert visitor.counts(conversation) == {"runs": 2, "echoes": 1, "terminals": 2}


def test_the_same_message_twice_at_once_makes_one_run_that_both_read(visitor: Visitor, conversation: str):
    result = visitor.drive("twice", conversation, prompt=BRISK, by="ai-sdk")
    first, second = result["answers"]
    assert first == second
    assert "".join(part["text"] for part in first["parts"] if part["type"] == "text") == words(40)
    assert visitor.settled(conversation)[-1] == (first["id"], "assistant", words(40))
    assert visitor.counts(conversation) == {"runs": 1, "echoes": 1, "terminals": 1}


def test_a_failure_of_the_model_is_an_error_in_the_chat(visitor: Visitor, conversation: str):
    chat = visitor.drive("ai_sdk_send", conversation, prompt="Show me an error delay=1")
    assert chat["status"] == "error"
    assert len(chat["errors"]) == 1
    assert visitor.settled(conversation)[0] == (chat["messages"][0]["id"], "user", "Show me an error delay=1")
    assert visitor.counts(conversation) == {"runs": 1, "echoes": 1, "terminals": 1}


def test_daphne_serves_it_too(daphne: str, arrive):
    visitor = arrive(daphne)
    conversation = visitor.begin()
    chat = visitor.drive("ai_sdk_send", conversation, prompt=BRISK)
    assert texts(chat["messages"]) == [("user", BRISK), ("assistant", words(40))]
    assert_grew(chat)
