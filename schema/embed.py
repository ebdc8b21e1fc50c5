#!/usr/bin/python3
"""Writes the C file that holds schema/postgres/*.sql and schema/redis/*.lua (lib/store/schema_files.h).

Usage: embed.py OUTPUT FILE...
"""
import os
import sys


def literal(text):
    """A C string literal, one source line per line of the file."""
    escape = {ord('"'): '\\"', ord("\\"): "\\\\", ord("\n"): "\\n", ord("?"): "\\?"}
    out = []
    for line in text.splitlines(keepends=True):
        out.append('"' + "".join(escape.get(b) or (chr(b) if 32 <= b < 127 else "\\%03o" % b) for b in line) + '"')
    return "\n".join(out) or '""'


def array(name, paths):
    rows = ["const struct schema_file %s[] = {" % name]
    for path in sorted(paths, key=os.path.basename):
        with open(path, "rb") as f:
            text = f.read()
        rows.append('{"%s",\n%s,\n%d},' % (os.path.basename(path), literal(text), len(text)))
    return "\n".join(rows + ["{0}};", ""])


def main():
    output, paths = sys.argv[1], sys.argv[2:]
    with open(output, "w") as f:
        f.write('#include "lib/store/schema_files.h"\n')
        f.write(array("schema_migrations", [p for p in paths if p.endswith(".sql")]))
        f.write(array("schema_scripts", [p for p in paths if p.endswith(".lua")]))


if __name__ == "__main__":
    main()
