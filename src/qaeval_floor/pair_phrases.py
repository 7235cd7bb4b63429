"""Phrases that join what a topic card says to a preference pair; which one is taken depends on the card's title."""

from collections.abc import Mapping, Sequence
from typing import Final

ASKS: Final[Mapping[str, Sequence[str]]] = {
    "howto": (
        "How should I set this up, and in which order?",
        "What would be a sensible way to build this, step by step?",
        "Which pieces do I need for this, and what should I do first?",
    ),
    "troubleshooting": (
        "Where should I look first, and what should I change?",
        "What is the likely cause, and how do I get rid of it for good?",
        "How can I find the reason, and which changes are worth making?",
    ),
    "planning": (
        "Can you help me to turn this into a plan that holds?",
        "How would you plan this, from the first trial to the final comparison?",
        "What should the plan look like, and what has to be settled before the start?",
    ),
    "impossible": (
        "How do I get there with what I have?",
        "Which settings and steps would make this work?",
        "What exactly do I have to do to bring this off?",
    ),
}
"""What a prompt asks, by type of scenario."""
ALSO: Final = (
    "I would also like to know how I can tell that it worked.",
    "Please give the reason for each step, because I would rather understand it than copy it.",
    "I would prefer few steps that I can check one by one.",
)
"""What it may ask besides."""
ORDER: Final[Mapping[str, Sequence[str]]] = {
    "howto": (
        "This is the order in which I would set it up, with the reason for each step.",
        "I would build it up in these steps, the most pressing ones first.",
        "The following steps cover that, beginning with what touches your conditions most.",
    ),
    "troubleshooting": (
        "Change one thing at a time, in this order, so that you can tell what helped.",
        "I would go through the likely causes in this order and note what each step shows.",
        "Work through these points one after the other, the likeliest first.",
    ),
    "planning": (
        "I would plan it in these steps, so that nothing is left to chance on the day.",
        "A plan for that can rest on the following steps, each with its reason.",
        "Settle these points before the start, beginning with those that decide most.",
    ),
    "impossible": (
        "These are the steps to a goal that you can reach instead.",
        "What you can do instead starts from these points.",
        "I would go another way, in these steps.",
    ),
}
"""Leads over to the steps."""
MATTERS: Final = (
    "This matters here because",
    "In your case it counts because",
    "You need this because",
    "It belongs here because",
)
"""Joins a sentence of the situation to a step."""
AVOID: Final = (
    "What I would avoid is {0}: it looks quicker, and the trouble comes later.",
    "Resist the shortcut of {0}, since that only postpones the trouble.",
    "I advise against {0}; that may look fine at first and fails when it counts.",
)
"""Warns of the weaker approach."""
WARY: Final = (
    "Be wary of advice that amounts to {0}.",
    "Do not let anyone talk you into a plan that comes down to {0}.",
)
"""Warns of advice that makes an impossible wish look possible."""
CLOSING: Final = (
    "This is how you see that it worked: {0}",
    "You can call it done when the following holds: {0}",
    "The test at the end is this: {0}",
)
"""Introduces the check."""
PATIENCE: Final = (
    "Write down what you changed at each step, so that you can go back to it later.",
    "Take the steps one by one and keep the earlier state until the last one is done.",
)
"""Fills up a chosen answer that is too short."""
PLAIN: Final[Mapping[str, Sequence[str]]] = {
    "howto": (
        "A few standard pieces are enough for this.",
        "This is a common task, and it needs no special tools.",
    ),
    "troubleshooting": (
        "This is a familiar problem, and a few settings usually settle it.",
        "There are a few usual suspects for this.",
    ),
    "planning": (
        "That is a reasonable plan, and a few decisions carry most of it.",
        "The plan is workable if a few basics are in place.",
    ),
    "impossible": (
        "That is very ambitious for what you have.",
        "I have doubts whether this works out as it is planned.",
    ),
}
"""Opens a rejected answer."""
ENOUGH: Final = (
    "For a first version, {0} is usually enough.",
    "To begin with, {0} will often do.",
    "If time is short, {0} can be a fair start.",
)
"""Takes the weaker approach to be sufficient."""
ADJUST: Final = (
    "After that, see how it behaves and adjust the settings where you notice something.",
    "Try it out with a few typical cases and adjust where needed.",
    "Start small, keep an eye on the logs, and extend it later if there is a need.",
)
"""Closes a rejected answer."""
ENOUGH_SAID: Final = (
    "That should cover the most important points.",
    "With that you should be on the safe side for the moment.",
    "More than that is rarely needed at this stage.",
)
"""Fills it up."""
SMALLER: Final = (
    "You could try a reduced setup first and see how far it gets.",
    "I would scale the goal down a little before you start.",
)
"""Stands for the weaker approach where the wish is impossible."""
