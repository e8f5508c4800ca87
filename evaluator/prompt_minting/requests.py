"""Makes short requests of a category from what is asked for and from ways to ask."""

from __future__ import annotations

from evaluator.prompt_minting.grammar import RequestCategory, fill, total_fillings
from evaluator.prompt_minting.secret_seed import Draws
from evaluator.prompts.requests import UserRequest

REQUESTS = (
    "How do I {}?",
    "How can I {}?",
    "Tell me how to {}.",
    "Explain how to {}.",
    "What is the best way to {}?",
    "I want to {}, so where do I start?",
    "Take me through how to {}.",
    "Give me a plan to {}.",
    "Help me {}.",
    "What do I need to {}?",
    "Show me how to {}.",
    "Is there an easy way to {}?",
    "List the steps to {}.",
    "I have to {}. Any tips?",
    "What is the quickest way to {}?",
    "Can you help me {}?",
    "My plan is to {}. What comes first?",
    "Please teach me to {}.",
    "In short, how would you {}?",
    "Say I had to {}. How would I do it?",
)


def mint_request(category: RequestCategory, draws: Draws, name: str, item_id: str) -> UserRequest:
    """The request that the seed has under a name."""
    act = fill(draws.choice(f"{name}/act", category.acts), draws, f"{name}/filling")
    prompt = draws.choice(f"{name}/request", REQUESTS).format(act)
    return UserRequest(id=item_id, category=category.category, prompt=prompt)


def n_requests(category: RequestCategory) -> int:
    """How many requests a category can give."""
    return total_fillings(category.acts) * len(REQUESTS)
