"""The same plan for other tools. Pure: a plan in, texts out; nothing is run or looked at."""
