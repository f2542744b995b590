"""Small Python functions, plain and as answers."""

from __future__ import annotations

import random

from forge.data.chat import turns

NAME = "python"

NOUNS = (  # noqa: SIM905
    "item value number word line name price score user file key node point row"
).split()
LISTS = (  # noqa: SIM905
    "items values numbers words lines names prices scores users files rows data"
).split()
FUNCTIONS = "process load count check update build read parse find clean".split()  # noqa: SIM905


def reduce_function(r: random.Random) -> tuple[str, str]:
    xs, x = r.choice(LISTS), r.choice("xvnwp")
    what, name, start, step = r.choice((
        ("the sum", "total", "0", f"result += {x}"),
        ("the product", "product", "1", f"result *= {x}"),
        ("the sum of squares", "sum_of_squares", "0", f"result += {x} * {x}"),
        ("the number of elements", "count", "0", "result += 1"),
    ))  # fmt: skip
    code = (
        f'def {name}({xs}):\n    """Return {what} of {xs}."""\n    result = {start}\n'
        f"    for {x} in {xs}:\n        {step}\n    return result\n"
    )
    return f"returns {what} of a list", code


def extreme_function(r: random.Random) -> tuple[str, str]:
    xs, x = r.choice(LISTS), r.choice("xvnwp")
    what, sign, name = r.choice((("largest", ">", "largest"), ("smallest", "<", "smallest")))
    code = (
        f'def {name}({xs}):\n    """Return the {what} of {xs}."""\n    best = {xs}[0]\n'
        f"    for {x} in {xs}:\n        if {x} {sign} best:\n            best = {x}\n"
        f"    return best\n"
    )
    return f"returns the {what} element of a list", code


def filter_function(r: random.Random) -> tuple[str, str]:
    xs, x = r.choice(LISTS), r.choice("xvnwp")
    what, test, name = r.choice((
        ("even numbers", f"{x} % 2 == 0", "even"), ("odd numbers", f"{x} % 2 == 1", "odd"),
        ("positive numbers", f"{x} > 0", "positive"), ("empty elements", f"not {x}", "empty"),
        ("long words", f"len({x}) > {r.randint(3, 9)}", "long_words"),
    ))  # fmt: skip
    code = (
        f'def {name}({xs}):\n    """Return the {what} in {xs}."""\n'
        f"    return [{x} for {x} in {xs} if {test}]\n"
    )
    return f"returns the {what} of a list", code


def operator_function(r: random.Random) -> tuple[str, str]:
    a, b = r.choice((("a", "b"), ("x", "y"), ("left", "right")))
    name, op, what = r.choice((
        ("add", "+", "adds two numbers"), ("subtract", "-", "subtracts two numbers"),
        ("multiply", "*", "multiplies two numbers"), ("divide", "/", "divides two numbers"),
    ))  # fmt: skip
    if name == "divide" and r.random() < 0.6:
        return what, (
            f"def divide({a}, {b}):\n    if {b} == 0:\n"
            f'        raise ValueError("division by zero")\n    return {a} / {b}\n'
        )
    return what, f"def {name}({a}, {b}):\n    return {a} {op} {b}\n"


def known_function(r: random.Random) -> tuple[str, str]:
    return r.choice((
        ("computes the factorial of a number",
         "def factorial(n):\n    if n < 2:\n        return 1\n    return n * factorial(n - 1)\n"),
        ("computes the Fibonacci numbers",
         "def fibonacci(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n"
         "    return a\n"),
        ("reverses a string", "def reverse(text):\n    return text[::-1]\n"),
        ("checks whether a word is a palindrome",
         "def is_palindrome(word):\n    word = word.lower()\n    return word == word[::-1]\n"),
        ("counts the words of a text",
         "def count_words(text):\n    counts = {}\n    for word in text.split():\n"
         "        counts[word] = counts.get(word, 0) + 1\n    return counts\n"),
        ("checks whether a number is prime",
         "def is_prime(n):\n    if n < 2:\n        return False\n    for i in range(2, n):\n"
         "        if n % i == 0:\n            return False\n    return True\n"),
        ("reads a file", "def read_file(path):\n    with open(path) as file:\n"
         "        return file.read()\n"),
        ("finds the greatest common divisor",
         "def gcd(a, b):\n    while b:\n        a, b = b, a % b\n    return a\n"),
        ("says hello", 'def hello(name):\n    print(f"Hello, {name}!")\n'),
    ))  # fmt: skip


def class_code(r: random.Random) -> tuple[str, str]:
    name = r.choice(NOUNS).capitalize()
    fields = r.sample(("name", "size", "price", "color", "width", "height", "age"), r.randint(1, 3))
    lines = [f"class {name}:", f"    def __init__(self, {', '.join(fields)}):"]
    lines += [f"        self.{f} = {f}" for f in fields]
    lines += ["", "    def __repr__(self):", f'        return f"{name}({{self.{fields[0]}}})"', ""]
    return f"is a class for a {name.lower()} with {' and '.join(fields)}", "\n".join(lines)


def script(r: random.Random) -> str:
    xs, n = r.choice(LISTS), r.choice(NOUNS)
    f = f"{r.choice(FUNCTIONS)}_{n}"
    body = r.choice((
        f"def {f}({n}):\n    if {n} is None:\n        return None\n    return str({n}).strip()\n",
        f"def {f}({n}, default={r.randrange(10)}):\n    try:\n        return int({n})\n"
        f"    except ValueError:\n        return default\n",
        f"def {f}({xs}):\n    for i, {n} in enumerate({xs}):\n        print(i, {n})\n",
        f"def {f}(path):\n    {xs} = []\n    with open(path) as file:\n"
        f"        for line in file:\n            {xs}.append(line.strip())\n    return {xs}\n",
        f"def {f}({xs}):\n    return sorted({xs}, key=lambda {n}: {n}."
        f"{r.choice(('name', 'size', 'age'))})\n",
    ))  # fmt: skip
    head = r.choice(("", "import os\n\n\n", "import json\n\n\n", "import sys\n\n\n"))
    tail = r.choice(("", '\n\nif __name__ == "__main__":\n    main()\n',
                     f"\n\n{xs} = {[r.randrange(50) for _ in range(r.randint(2, 5))]}\n"
                     f"for {n} in {xs}:\n    print({n})\n"))  # fmt: skip
    return head + body + tail


MAKERS = (reduce_function, extreme_function, filter_function, operator_function, known_function,
          known_function, class_code)  # fmt: skip


def document(rng: random.Random) -> str:
    if rng.random() < 0.55:
        pieces = [rng.choice(MAKERS)(rng)[1] if rng.random() < 0.6 else script(rng)
                  for _ in range(rng.randint(1, 3))]  # fmt: skip
        return "\n\n".join(pieces)
    what, code = rng.choice(MAKERS)(rng)
    kind = "code" if what.startswith("is a class") else "a Python function"
    what = what.replace("is a class for", "makes a class for")
    ask = rng.choice((f"Write {kind} that {what}.", f"Please write {kind} that {what}.",
                      f"Show me {kind} that {what}."))  # fmt: skip
    return turns(ask, f"```python\n{code}```")
