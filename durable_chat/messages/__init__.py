"""Messages, what a send asks for, what a provider gets, and the fold of a stream's chunks into messages."""

from durable_chat.messages.folding import Fold, fold
from durable_chat.messages.turns import Author, Message, Part, Prompt, Turn, echo

__all__ = ["Author", "Fold", "Message", "Part", "Prompt", "Turn", "echo", "fold"]
