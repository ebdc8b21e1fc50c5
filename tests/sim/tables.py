#!/usr/bin/python3
"""Writes the tables of what the simulation must have a model of, from the sources: a file of schema/redis without a
model_<name>, or a statement of lib/store without a stmt_<name> or a line in pg_unused.c, is then a link error.

Usage: tables.py SCHEMA.lua... STORE.c... > OUT.c"""
import os
import re
import sys


def main():
    sources, file = sys.argv[1:], sys.stdout
    scripts = sorted(os.path.basename(s)[:-4] for s in sources if s.endswith(".lua"))
    scripts = [s for s in scripts if not s.startswith("prelude")]
    statements = set()
    for source in sources:
        if source.endswith(".c"):
            with open(source, encoding="utf-8") as text:
                # struct pg_stmt x = {"name", …}
                statements |= set(re.findall(r"struct pg_stmt \w+ = \{\s*(?:/\*.*?\*/\s*)?\"(\w+)\"", text.read(), re.DOTALL))
    file.write('#include "tests/sim/pg_model.h"\n#include "tests/sim/redis_model.h"\n\n')
    for name in scripts:
        file.write(f"model_fn model_{name};\n")
    file.write("const struct model_script model_scripts[] = {\n")
    for name in scripts:
        file.write(f'    {{"{name}", model_{name}}},\n')
    file.write("    {0}};\n\n")
    for name in sorted(statements):
        file.write(f"stmt_fn stmt_{name};\n")
    file.write("const struct model_stmt model_stmts[] = {\n")
    for name in sorted(statements):
        file.write(f'    {{"{name}", stmt_{name}}},\n')
    file.write("    {0}};\n")
    file.write(f"const size_t model_stmt_count = {len(statements)};\n")


if __name__ == "__main__":
    main()
