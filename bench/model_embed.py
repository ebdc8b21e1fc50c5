#!/usr/bin/python3
"""Makes a C source with the figures of bench/model.json: the constants that cli/plan_figures.h declares.

Usage: model_embed.py OUTPUT HEADER FIGURES"""
import json
import re
import sys


def main():
    output, header, path = sys.argv[1:]
    with open(header, encoding="utf-8") as f:
        text = f.read()
    body = re.sub(r"/\*.*?\*/", "", text[text.index("struct plan_figures {"):text.index("};")], flags=re.S)
    declared = [name.strip() for names in re.findall(r"double ([^;]+);", body) for name in names.split(",")]
    with open(path, encoding="utf-8") as f:
        whole = json.load(f)
    figures = whole["figures"]
    unknown, missing = sorted(set(figures) - set(declared)), sorted(set(declared) - set(figures))
    if unknown or missing:
        sys.exit(f"{path} does not fit {header}: unknown {unknown}, missing {missing}")
    on = f"{whole['processor']}, {whole['cpus']} cores, Linux {whole['kernel']}, {whole['at'][:10]}"
    with open(output, "w", encoding="utf-8") as out:
        out.write(f'#include "{header}"\n\nconst struct plan_figures plan_figures = {{\n')
        out.writelines(f"    .{name} = {figures[name]!r},\n" for name in declared)
        out.write(f"}};\n\nconst char plan_measured_on[] = {json.dumps(on)};\n")


if __name__ == "__main__":
    main()
