"""Single changes to Python code, found in its syntax tree."""

import ast

from mutants.change import Change

COMPARISONS: dict[type[ast.cmpop], tuple[str, tuple[str, ...]]] = {
    ast.Eq: ("==", ("!=",)),
    ast.NotEq: ("!=", ("==",)),
    ast.Lt: ("<", ("<=", ">")),
    ast.LtE: ("<=", ("<", ">=")),
    ast.Gt: (">", (">=", "<")),
    ast.GtE: (">=", (">", "<=")),
    ast.Is: ("is", ("is not",)),
    ast.IsNot: ("is not", ("is",)),
    ast.In: ("in", ("not in",)),
    ast.NotIn: ("not in", ("in",)),
}
ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"),
    ast.Pow: ("**", "*"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.BitXor: ("^", "&"),
}
SYMMETRIC = {"isinstance", "issubclass", "max", "min"}
"""Functions whose arguments are not swapped: it changes nothing, or fails at once."""
OPPOSITES = {"min": "max", "max": "min", "any": "all", "all": "any"}


def changes(file: str, text: str) -> list[Change]:
    """All single changes to the file. Left out is what cannot alter behaviour that is promised: documentation and type
    hints, the texts of errors, `assert` and `strict=True` of zip, `__repr__`, `__all__`, and what decorators are called
    with."""
    finder = _Finder(file, text)
    finder.visit(ast.parse(text))
    return sorted({change for change in finder.found if change.before(text) != change.after})


class _Finder(ast.NodeVisitor):
    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self.found: list[Change] = []
        self.statement: ast.stmt | None = None
        self.lines = [0]
        for line in text.splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))

    # --- places ---

    def offset(self, line: int, column: int) -> int:
        """Of a line (from 1) and a column in UTF-8 bytes, as `ast` counts them."""
        start = self.lines[line - 1]
        return start + len(self.text[start : self.lines[line]].encode()[:column].decode())

    def span(self, node: ast.AST) -> tuple[int, int]:
        start = self.offset(node.lineno, node.col_offset)  # type: ignore[attr-defined]
        return start, self.offset(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]

    def source(self, node: ast.AST) -> str:
        start, end = self.span(node)
        return self.text[start:end]

    def between(self, left: ast.AST, right: ast.AST, symbol: str) -> tuple[int, int] | None:
        """Where the operator stands that is between two operands."""
        start, end = self.span(left)[1], self.span(right)[0]
        at = self.text.find(symbol, start, end)
        return None if at < 0 else (at, at + len(symbol))

    def add(self, kind: str, start: int, end: int, after: str) -> None:
        statement = self.statement
        assert statement is not None
        last = statement.end_lineno or statement.lineno
        if hasattr(statement, "body"):
            # Of a compound statement its head.
            last = max(statement.lineno, statement.body[0].lineno - 1)
        self.found.append(Change(self.file, start, end, after, kind, "", statement.lineno, last))

    def add_between(self, kind: str, left: ast.AST, right: ast.AST, symbol: str, after: str) -> None:
        place = self.between(left, right, symbol)
        if place is not None:
            self.add(kind, *place, after)

    # --- what is left out ---

    def visit(self, node: ast.AST) -> None:
        before = self.statement
        if isinstance(node, ast.stmt):
            self.statement = node
        super().visit(node)
        self.statement = before

    def visit_Assert(self, node: ast.Assert) -> None:
        pass

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_arguments(self, node: ast.arguments) -> None:
        for default in [*node.defaults, *node.kw_defaults]:
            if default is not None:
                self.visit(default)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name == "__repr__" or any("overload" in ast.dump(decorator) for decorator in node.decorator_list):
            return
        self.visit(node.args)
        for statement in node.body:
            self.visit(statement)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for statement in node.body:
            self.visit(statement)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg != "strict":
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        if not any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets):
            self.visit(node.value)

    # --- statements ---

    def visit_Raise(self, node: ast.Raise) -> None:
        # The text of the error is for people; that there is one is not.
        self.drop("raise", node)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is None:
            self.drop("return", node)
        elif not (isinstance(node.value, ast.Constant) and node.value.value is None):
            self.add("return", *self.span(node.value), "None")
            self.visit(node.value)

    def visit_Continue(self, node: ast.Continue) -> None:
        self.add("continue", *self.span(node), "break")
        self.drop("continue", node)

    def visit_Break(self, node: ast.Break) -> None:
        self.drop("break", node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.drop("assignment", node)
        symbol, after = ARITHMETIC.get(type(node.op), ("", ""))
        if symbol:
            self.add_between("arithmetic", node.target, node.value, symbol, after)
        self.visit(node.value)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return  # Documentation.
        if isinstance(node.value, ast.Call):
            self.drop("call", node)
        self.visit(node.value)

    def drop(self, kind: str, node: ast.stmt) -> None:
        self.add(f"dropped {kind}", *self.span(node), "pass")

    # --- conditions ---

    def negate(self, test: ast.expr) -> None:
        # `not x` is changed by dropping the word, a comparison by another one.
        if not isinstance(test, ast.UnaryOp | ast.Compare):
            self.add("negated condition", *self.span(test), f"not ({self.source(test)})")

    def visit_If(self, node: ast.If) -> None:
        if self.source(node.test) == "TYPE_CHECKING":
            return
        self.negate(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        self.negate(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.negate(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self.negate(test)
        self.generic_visit(node)

    # --- expressions ---

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for left, operator, right in zip(operands, node.ops, operands[1:], strict=False):
            symbol, others = COMPARISONS[type(operator)]
            for after in others:
                self.add_between("comparison", left, right, symbol, after)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        symbol, after = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self.add_between("and, or", left, right, symbol, after)
            self.add("dropped operand", self.span(left)[1], self.span(right)[1], self.closing(left, right))
        first, second = node.values[:2]
        self.add("dropped operand", self.span(first)[0], self.span(second)[0], self.opening(first, second))
        self.generic_visit(node)

    def closing(self, left: ast.AST, right: ast.AST) -> str:
        """The brackets that were closed behind the left operand, which stay when the right one goes."""
        return ")" * self.text.count(")", self.span(left)[1], self.span(right)[0])

    def opening(self, left: ast.AST, right: ast.AST) -> str:
        return "(" * self.text.count("(", self.span(left)[1], self.span(right)[0])

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in ARITHMETIC:
            symbol, after = ARITHMETIC[type(node.op)]
            self.add_between("arithmetic", node.left, node.right, symbol, after)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if not isinstance(node.op, ast.UAdd):
            self.add("dropped sign", self.span(node)[0], self.span(node.operand)[0], "")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.add("constant", *self.span(node), str(not node.value))
        elif isinstance(node.value, int):
            for after in (node.value + 1, node.value - 1):
                self.add("constant", *self.span(node), str(after) if after >= 0 else f"({after})")
        elif isinstance(node.value, float):
            self.add("constant", *self.span(node), repr(node.value * 2 if node.value else 1.0))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass  # Places inside of these are not told exactly before Python 3.12; most are texts for people.

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in OPPOSITES:
            self.add("function", *self.span(node.func), OPPOSITES[node.func.id])
        plain = [argument for argument in node.args if not isinstance(argument, ast.Starred)]
        symmetric = isinstance(node.func, ast.Name) and node.func.id in SYMMETRIC
        if len(plain) == len(node.args) and not symmetric:
            for left, right in zip(node.args, node.args[1:], strict=False):
                start, end = self.span(left)[0], self.span(right)[1]
                middle = self.text[self.span(left)[1] : self.span(right)[0]]
                constants = isinstance(left, ast.Constant) != isinstance(right, ast.Constant)
                if middle.strip() == "," and not constants:
                    self.add("swapped arguments", start, end, self.source(right) + middle + self.source(left))
        for keyword in node.keywords:
            if keyword.arg not in (None, "strict"):
                start, end = self.span(keyword)
                self.add("dropped keyword", start, self.with_comma(end), "")
        self.generic_visit(node)

    def with_comma(self, end: int) -> int:
        """The offset behind the comma that follows, if one does."""
        rest = self.text[end:]
        stripped = rest.lstrip()
        return end + len(rest) - len(stripped) + 1 if stripped.startswith(",") else end


def is_another_program(before: str, after: str) -> bool:
    """Whether a change leaves a program, and not the same one."""
    try:
        return ast.dump(ast.parse(before)) != ast.dump(ast.parse(after))
    except (SyntaxError, ValueError):
        return False
