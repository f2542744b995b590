from dataclasses import dataclass
@dataclass
class Reason:
    sentence: str
    hint: str | None = None
def explain_exit(log, code, name):
    return Reason("\n".join(log)+f" {code}")
