"""Tool calls: schemas with names that vary, values that must be copied from the request."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from forge.data import facts
from forge.data.arithmetic import held_out
from forge.data.chat import dumps, render

NAME = "tools"

CITIES = (  # noqa: SIM905
    "Paris London Berlin Madrid Rome Lisbon Vienna Prague Oslo Dublin Athens Warsaw Tokyo Cairo "
    "Lima Boston Chicago Denver Toronto Sydney Mumbai Nairobi Hamburg Munich Zurich Geneva "
    "Kyoto Seoul Bangkok Hanoi Quito Bogota Havana Milan Naples Porto Seville Leeds Bristol "
    "York"
).split()
PEOPLE = (  # noqa: SIM905
    "Anna Ben Clara David Emma Felix Greta Hugo Ida Jonas Kate Leo Mia Nora Otto Paul Rosa Sam "
    "Tom Vera"
).split()
THINGS = (  # noqa: SIM905
    "milk bread apples coffee tea rice soap paper candles honey eggs cheese flowers pens batteries"
).split()
TOPICS = (
    "red apples",
    "old castles",
    "the moon",
    "train times",
    "blue whales",
    "cheap flights",
    "good books",
    "wild horses",
    "bread recipes",
    "solar power",
    "garden tools",
    "city maps",
    "black holes",
    "small dogs",
    "winter coats",
    "piano music",
    "green tea",
    "chess rules",
)
MESSAGES = (
    "I will be late", "Dinner is ready", "See you tomorrow", "The train is here", "Call me back",
    "Happy birthday", "The meeting is at noon", "I found the keys", "Thank you for the book",
    "We are home now", "Bring the umbrella", "The door is open", "Lunch is at one",
)  # fmt: skip
LANGUAGES = ("German", "Spanish", "French", "Italian", "Polish", "Dutch", "Greek", "Danish")
SYLLABLES = (  # noqa: SIM905
    "ba be bi bo ka ke ki ko la le li lo ma me mi mo na ne no ra re ri ro sa se so ta te ti to "
    "va vi zu"
).split()


def invented(rng: random.Random) -> str:
    """A word nobody has seen: copying is the only way to get it right."""
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 4)))


def name_like(rng: random.Random, words: list[str]) -> str:
    return invented(rng).capitalize() if rng.random() < 0.35 else rng.choice(words)


def city(rng: random.Random) -> str:
    return name_like(rng, CITIES)


def person(rng: random.Random) -> str:
    return name_like(rng, PEOPLE)


def number(rng: random.Random) -> int:
    return rng.randrange(1, 100)


def term(rng: random.Random) -> int:
    return rng.randrange(1, 100) if rng.random() < 0.6 else rng.randrange(100, 10_000)


def title(rng: random.Random) -> str:
    return " ".join(invented(rng).capitalize() for _ in range(rng.randint(1, 2)))


def clock_time(rng: random.Random) -> str:
    return f"{rng.randrange(24):02d}:{rng.randrange(60):02d}"


def symbol(rng: random.Random) -> str:
    return invented(rng)[: rng.randint(3, 4)].upper()


def anything(rng: random.Random) -> str:
    return rng.choice((city, person, topic, title, invented))(rng)


def topic(rng: random.Random) -> str:
    if rng.random() < 0.35:
        return f"{invented(rng)} {rng.choice(THINGS)}"
    return rng.choice(TOPICS + tuple(THINGS))


@dataclass(frozen=True)
class Family:
    """One kind of tool: names it goes by, parameters with their makers, ways of asking."""

    names: tuple[str, ...]
    description: tuple[str, ...]
    parameters: tuple[tuple[tuple[str, ...], str, Callable[[random.Random], Any]], ...]
    requests: tuple[str, ...]
    reply: Callable[[list[Any], random.Random], tuple[Any, str]]


def weather(values: list[Any], rng: random.Random) -> tuple[Any, str]:
    sky, degrees = rng.choice(("sunny", "cloudy", "rainy", "windy", "foggy")), rng.randrange(0, 36)
    result = {"sky": sky, "degrees": degrees}
    return result, f"The weather in {values[0]} is {sky} at {degrees} degrees."


def added(values: list[Any], rng: random.Random) -> tuple[Any, str]:
    total = values[0] + values[1]
    return {"result": total}, f"The result is {total}."


def sent(values: list[Any], rng: random.Random) -> tuple[Any, str]:
    return {"status": "sent"}, f"I sent your message to {values[0]}."


def timer(values: list[Any], rng: random.Random) -> tuple[Any, str]:
    return {"status": "ok"}, f"The timer is set for {values[0]} minutes."


def found(values: list[Any], rng: random.Random) -> tuple[Any, str]:
    count = rng.randrange(2, 50)
    return {"results": count}, f"I found {count} results for {values[0]}."


def bought(values: list[Any], rng: random.Random) -> tuple[Any, str]:
    return {"status": "ok"}, f"I put {values[0]} {values[1]} on the list."


def clock(values: list[Any], rng: random.Random) -> tuple[Any, str]:
    time = f"{rng.randrange(0, 24):02d}:{rng.randrange(60):02d}"
    return {"time": time}, f"It is {time} in {values[0]}."


def translated(values: list[Any], rng: random.Random) -> tuple[Any, str]:
    text = f"{invented(rng)} {invented(rng)}"
    return {"text": text}, f"In {values[1]} it is: {text}"


def done(values: list[Any], rng: random.Random) -> tuple[Any, str]:
    return {"status": "ok"}, "Done."


def priced(values: list[Any], rng: random.Random) -> tuple[Any, str]:
    price = rng.randrange(1, 900)
    return {"price": price}, f"The price of {values[0]} is {price}."


def multiplied(values: list[Any], rng: random.Random) -> tuple[Any, str]:
    product = values[0] * values[1]
    return {"result": product}, f"The result is {product}."


def answered(values: list[Any], rng: random.Random) -> tuple[Any, str]:
    word = invented(rng)
    return {"result": word}, f"The result is {word}."


def booked(values: list[Any], rng: random.Random) -> tuple[Any, str]:
    code = invented(rng).upper()
    return {"code": code}, f"The table for {values[0]} is booked. The code is {code}."


def noted(values: list[Any], rng: random.Random) -> tuple[Any, str]:
    return {"status": "saved"}, "I saved the note."


FAMILIES = (
    Family(
        ("get_weather", "weather", "get_current_weather", "weather_report", "check_weather"),
        ("Get the weather of a city", "Get the current weather", "Current weather in a place"),
        ((("city", "location", "place", "town"), "string", city),),
        ("What is the weather in {0}?", "How is the weather in {0}?", "Weather in {0}, please.",
         "What is the weather like in {0}?", "Is it raining in {0}?", "Tell me the weather in {0}.",
         "What's the weather in {0}?", "What's the weather like in {0} today?"),
        weather,
    ),
    Family(
        ("add", "add_numbers", "sum", "calculate_sum", "plus"),
        ("Add two numbers", "Sum of two numbers", "Adds a and b"),
        ((("a", "x", "first", "left"), "integer", term),
         (("b", "y", "second", "right"), "integer", term)),
        ("Add {0} and {1}.", "What is {0} plus {1}?", "What is {0} + {1}?",
         "Sum {0} and {1}, please.",
         "Use the tool to add {0} and {1}.", "Please add {0} and {1}."),
        added,
    ),
    Family(
        ("search", "web_search", "find", "search_web", "lookup"),
        ("Search the web", "Find pages about something", "Search for text"),
        ((("query", "q", "text", "term"), "string", topic),),
        ("Search for {0}.", "Find {0}.", "Look up {0}.", "Please search for {0}.",
         "Can you search for {0}?", "Search the web for {0}."),
        found,
    ),
    Family(
        ("set_timer", "timer", "start_timer", "countdown"),
        ("Set a timer", "Start a timer of some minutes", "Start a countdown"),
        ((("minutes", "duration", "time", "length"), "integer", number),),
        ("Set a timer for {0} minutes.", "Start a timer of {0} minutes.", "Timer, {0} minutes.",
         "Please set a {0} minute timer.", "Wake me in {0} minutes."),
        timer,
    ),
    Family(
        ("send_message", "message", "send_text", "send_mail", "text_person"),
        ("Send a message to a person", "Send a text message", "Write to someone"),
        ((("to", "recipient", "name", "person"), "string", person),
         (("body", "text", "message", "content"), "string", lambda r: r.choice(MESSAGES))),
        ("Send {0} a message: {1}.", "Tell {0}: {1}.", "Write to {0}: {1}.",
         "Send a message to {0}: {1}.", "Text {0}: {1}.", 'Send "{1}" to {0}.'),
        sent,
    ),
    Family(
        ("add_to_list", "buy", "shopping_list", "order_item"),
        ("Put an item on the shopping list", "Order something"),
        ((("count", "amount", "quantity", "number"), "integer", number),
         (("item", "thing", "product", "article"), "string", lambda r: r.choice(THINGS))),
        ("Put {0} {1} on the list.", "Buy {0} {1}.", "We need {0} {1}.", "Order {0} {1}, please."),
        bought,
    ),
    Family(
        ("get_time", "current_time", "local_time", "clock"),
        ("Get the time in a city", "Local time of a place"),
        ((("city", "place", "location", "where"), "string", city),),
        ("What time is it in {0}?", "Tell me the time in {0}.", "Time in {0}?",
         "How late is it in {0}?"),
        clock,
    ),
    Family(
        ("translate", "translate_text", "to_language"),
        ("Translate a text", "Translate text into a language"),
        ((("text", "phrase", "sentence"), "string", lambda r: r.choice(MESSAGES)),
         (("language", "target", "into"), "string", lambda r: r.choice(LANGUAGES))),
        ("Translate into {1}: {0}.", "How do you say in {1}: {0}?", 'Translate "{0}" into {1}.',
         'What is "{0}" in {1}?'),
        translated,
    ),
    Family(
        ("book_table", "reserve", "reserve_table", "make_reservation"),
        ("Book a table in a restaurant", "Reserve a table"),
        ((("name", "guest", "person"), "string", person),
         (("people", "guests", "seats", "size"), "integer", lambda r: r.randrange(1, 13))),
        ("Book a table for {1} people under the name {0}.", "Reserve a table for {1}, name {0}.",
         "A table for {1} for {0}, please."),
        booked,
    ),
    Family(
        ("save_note", "write_note", "remember", "note"),
        ("Save a note", "Write something down"),
        ((("text", "note", "content"), "string",
          lambda r: f"{r.choice(('buy', 'find', 'bring', 'sell'))} {topic(r)}"),),
        ("Save a note: {0}.", "Write down: {0}.", "Remember this: {0}.", "Note: {0}."),
        noted,
    ),
    Family(
        ("get_stock_price", "stock_price", "get_price", "quote", "share_price"),
        ("Get the price of a stock", "Current price of a share", "Look up a price"),
        ((("symbol", "ticker", "stock", "name"), "string", symbol),),
        ("What is the price of {0}?", "How much is {0} worth?", "Price of {0}?",
         "Get the stock price of {0}."),
        priced,
    ),
    Family(
        ("set_alarm", "alarm", "wake_up", "create_alarm"),
        ("Set an alarm", "Wake the user at a time"),
        ((("time", "at", "when", "clock"), "string", clock_time),),
        ("Set an alarm for {0}.", "Wake me at {0}.", "Alarm at {0}, please."),
        done,
    ),
    Family(
        ("play_music", "play_song", "play", "start_music"),
        ("Play a song", "Play music"),
        ((("song", "title", "name", "track"), "string", title),),
        ("Play {0}.", "Please play {0}.", "I want to hear {0}.", "Put on {0}."),
        done,
    ),
    Family(
        ("turn_on_light", "light_on", "switch_light", "set_light"),
        ("Turn on the light in a room", "Switch on a light"),
        ((("room", "where", "place", "name"), "string",
          lambda r: r.choice(("kitchen", "bedroom", "bathroom", "hall", "garage", "office",
                              "cellar", "garden"))),),
        ("Turn on the light in the {0}.", "Light in the {0}, please.",
         "It is dark in the {0}. Switch on the light.", "Switch on the {0} light."),
        done,
    ),
    Family(
        ("multiply", "multiply_numbers", "times", "product"),
        ("Multiply two numbers", "Product of two numbers"),
        ((("a", "x", "first", "left"), "integer", number),
         (("b", "y", "second", "right"), "integer", number)),
        ("Multiply {0} by {1}.", "What is {0} times {1}?", "What is {0} * {1}?",
         "Multiply {0} and {1}, please."),
        multiplied,
    ),
    Family(
        ("create_event", "add_event", "calendar", "schedule", "new_appointment"),
        ("Put an event into the calendar", "Create an appointment"),
        ((("title", "event", "name", "what"), "string", topic),
         (("time", "when", "at", "start"), "string", clock_time)),
        ("Put {0} at {1} into my calendar.", "Schedule {0} for {1}.", "Add {0} at {1}.",
         "Create an event: {0}, {1}."),
        done,
    ),
    Family(
        ("get_user", "find_user", "load_profile", "get_customer", "lookup_id"),
        ("Get a user by number", "Load a record by its id"),
        ((("id", "user_id", "number", "key"), "integer", lambda r: r.randrange(1, 100_000)),),
        ("Who is user {0}?", "Show me user {0}.", "Load the record {0}.", "Find number {0}."),
        answered,
    ),
    Family(
        ("read_file", "open_file", "load_file", "cat"),
        ("Read a file", "Return the content of a file"),
        ((("path", "file", "name", "filename"), "string",
          lambda r: f"{invented(r)}.{r.choice(('txt', 'md', 'py', 'json', 'csv'))}"),),
        ("Read {0}.", "What is in {0}?", "Open the file {0}.", "Show me {0}."),
        answered,
    ),
)  # fmt: skip


def invented_family(rng: random.Random) -> Family:
    """A tool that exists only in its schema: name, parameters and request are all made up."""
    verb = rng.choice(("run", "use", "start", "call", "make", "get", "open", "check"))
    noun = invented(rng)
    keys = list({rng.choice(("name", "value", "target", "item", "key", "mode", "input", "option",
                             invented(rng))) for _ in range(rng.randint(1, 3))})  # fmt: skip
    keys.sort()
    kinds = [rng.choice((("string", anything), ("string", anything), ("integer", term)))
             for _ in keys]  # fmt: skip
    said = " and ".join(f"{key} {{{i}}}" for i, key in enumerate(keys))
    return Family(
        (f"{verb}_{noun}",),
        (f"{verb.capitalize()} the {noun}",),
        tuple(((key,), kind, make) for key, (kind, make) in zip(keys, kinds, strict=True)),
        (f"{verb.capitalize()} the {noun} with {said}.", f"Please {verb} {noun} with {said}.",
         f"{verb.capitalize()} {noun}, {said}."),
        rng.choice((done, answered)),
    )  # fmt: skip


@dataclass(frozen=True)
class Tool:
    family: Family
    name: str
    parameters: tuple[str, ...]
    schema: dict[str, Any]


def make_tool(rng: random.Random, family: Family) -> Tool:
    """A concrete tool of a family: sometimes under its plain names, sometimes invented ones."""
    plain = rng.random() < 0.4
    name = family.names[0] if plain else rng.choice(family.names)
    if not plain and rng.random() < 0.2:
        name = f"{name}_{invented(rng)}" if rng.random() < 0.5 else invented(rng)
    names = [p[0][0] if plain else rng.choice(p[0]) for p in family.parameters]
    if len(set(names)) < len(names):
        names = [p[0][0] for p in family.parameters]
    described = rng.random() < 0.35
    properties: dict[str, Any] = {}
    for key, (_, kind, _) in zip(names, family.parameters, strict=True):
        kind = "number" if kind == "integer" and rng.random() < 0.25 else kind
        properties[key] = {"type": kind}
        if described:
            properties[key]["description"] = f"The {key}"
    description = family.description[0] if plain else rng.choice(family.description)
    parameters = {"type": "object", "properties": properties, "required": names}
    if rng.random() < 0.15:  # clients differ in how they order the keys
        parameters = {key: parameters[key] for key in rng.sample(sorted(parameters), 3)}
    if rng.random() < 0.15:
        description += "."
    schema = {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }
    return Tool(family, name, tuple(names), schema)


def call_of(tool: Tool, values: list[Any]) -> dict[str, Any]:
    arguments = dict(zip(tool.parameters, values, strict=True))
    return {"type": "function", "function": {"name": tool.name, "arguments": arguments}}


def request(rng: random.Random, tool: Tool) -> tuple[str, list[Any]]:
    while True:
        values = [make(rng) for _, _, make in tool.family.parameters]
        if tool.family.reply is not added or not held_out("+", values[0], values[1]):
            return rng.choice(tool.family.requests).format(*values), values


SYSTEMS = ("You are a helpful assistant.", "You are a helpful assistant.", "Be brief.",
           "You help with small tasks.")  # fmt: skip
SMALL_TALK = (
    ("Hello!", "Hello! How can I help you?"),
    ("Hi", "Hello! How can I help you?"),
    ("Thank you!", "You are welcome."),
    ("Good morning.", "Good morning! How can I help you?"),
)


def conversation(rng: random.Random) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Messages and tools of one conversation."""
    families = rng.sample(FAMILIES, rng.choice((1, 1, 2, 2, 3)))
    if rng.random() < 0.2:
        families[0] = invented_family(rng)
        rng.shuffle(families)
    tools = [make_tool(rng, family) for family in families]
    messages: list[dict[str, Any]] = []
    if rng.random() < 0.3:
        messages.append({"role": "system", "content": rng.choice(SYSTEMS)})
    if rng.random() < 0.08:
        user, assistant = rng.choice(SMALL_TALK)
        if rng.random() < 0.5:
            user, assistant = facts.question(rng)
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    for _ in range(rng.choice((1, 1, 2))):
        tool = rng.choice(tools)
        text, values = request(rng, tool)
        result, final = tool.family.reply(values, rng)
        messages += [
            {"role": "user", "content": text},
            {"role": "assistant", "tool_calls": [call_of(tool, values)]},
        ]
        messages += [
            {"role": "tool", "content": dumps(result)},
            {"role": "assistant", "content": final},
        ]
    return messages, [tool.schema for tool in tools]


def document(rng: random.Random) -> str:
    return render(*conversation(rng))
