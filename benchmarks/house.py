"""The shape of the code, counted: how long, how wide, and which rooms import each other.

Command: python benchmarks/house.py COMMIT [COMMIT ...]
n: every file of src/gossamer at each commit
Hardware: any, nothing is timed
Date: 2026-11-28, docs/results/house.jsonl

One line of JSON a commit. A room is a folder or a file directly in src/gossamer. Imports for type checkers only are not
counted; those inside functions are. A function's lines are without its docstring, and with its signature.
"""

import ast
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath

ROOT = "src/gossamer"
LONGEST_FILE, LONGEST_FUNCTION, MOST_PARAMETERS = 400, 60, 12


def sources(commit: str) -> Iterator[tuple[PurePosixPath, str]]:
    """Every Python file of the package at a commit, with its text."""
    listed = _git("ls-tree", "-r", "--name-only", commit, ROOT).split("\n")
    for name in listed:
        if name.endswith(".py"):
            yield PurePosixPath(name).relative_to(ROOT), _git("show", f"{commit}:{name}")


def counts(commit: str) -> dict[str, object]:
    """What is counted of a commit."""
    lines = code_lines = files = long_files = long_functions = wide_functions = local_imports = 0
    longest_file = longest_function = most_parameters = 0
    imports: dict[str, set[str]] = defaultdict(set)
    classes: dict[str, int] = defaultdict(int)
    rooms = set()
    trees = [(path, text, ast.parse(text)) for path, text in sources(commit)]
    for path, text, tree in trees:
        room = path.parts[0].removesuffix(".py")
        rooms.add(room)
        length = text.count("\n")
        code_lines += _code_lines(text, tree)
        files, lines, long_files = files + 1, lines + length, long_files + (length > LONGEST_FILE)
        longest_file = max(longest_file, length)
        imports[room] |= {other for other in _imported(tree) if other != room}
        local_imports += len(_inside_functions(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes[node.name] += 1
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                own, width = _length(node), _parameters(node)
                longest_function, most_parameters = max(longest_function, own), max(most_parameters, width)
                long_functions += own > LONGEST_FUNCTION
                wide_functions += width > MOST_PARAMETERS
    reached = {room: _reached(room, imports) for room in rooms}
    return {
        "commit": commit,
        "lines": lines,
        "lines_of_code": code_lines,
        "files": files,
        "files_over_400_lines": long_files,
        "longest_file": longest_file,
        "functions_over_60_lines": long_functions,
        "longest_function": longest_function,
        "functions_over_12_parameters": wide_functions,
        "most_parameters": most_parameters,
        "imports_inside_functions": local_imports,
        "rooms_that_import_themselves_around": sorted(room for room in rooms if room in reached[room]),
        "pairs_of_rooms_that_import_each_other": sorted(
            f"{one} {other}" for one in rooms for other in imports[one] if one < other and one in imports[other]
        ),
        "names_of_several_classes": {name: count for name, count in sorted(classes.items()) if count > 1},
    }


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout


def _imported(tree: ast.Module) -> set[str]:
    """The rooms that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(_without_type_checking(tree)):
        if isinstance(node, ast.ImportFrom) and node.module == "gossamer":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gossamer."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("gossamer.")}
    return found


def _without_type_checking(tree: ast.Module) -> ast.Module:
    kept = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING")
    ]
    return ast.Module(kept, [])


def _inside_functions(tree: ast.Module) -> set[int]:
    return {
        node.lineno
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }


def _code_lines(text: str, tree: ast.Module) -> int:
    """Lines that are neither blank, nor a comment, nor part of a docstring or an import."""
    other: set[int] = set()
    for node in ast.walk(tree):
        documents = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if documents or isinstance(node, ast.Import | ast.ImportFrom):
            other |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(text.split("\n"), start=1)
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in other for number, line in lines
    )


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    docstring = ast.get_docstring(function, clean=False)
    whole = (function.end_lineno or function.lineno) - function.lineno + 1
    return whole - (0 if docstring is None else docstring.count("\n") + 1)


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    arguments = function.args
    return len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)


def _reached(room: str, imports: dict[str, set[str]]) -> set[str]:
    """The rooms that are imported by a room, directly or through others."""
    found: set[str] = set()
    waiting = list(imports[room])
    while waiting:
        other = waiting.pop()
        if other not in found:
            found.add(other)
            waiting += imports.get(other, ())
    return found


if __name__ == "__main__":
    for commit in sys.argv[1:]:
        print(json.dumps(counts(commit)))
