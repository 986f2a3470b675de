"""The file itself: one HTML document that loads nothing. Its own security policy lets no other script run than its two,
by their hash, so that text from a run that should slip through as markup could still do nothing."""

import base64
import hashlib
import json
from contextlib import suppress
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from gossamer.errors import CheckpointError
from gossamer.report.errors import ReportError
from gossamer.report.markup import Markup, text
from gossamer.storage.cache import cache_folder
from gossamer.storage.files import read_text, write_text

LIBRARIES = (
    "Vega, Vega-Lite and Vega-Embed (vega.github.io): BSD-3-Clause, University of Washington Interactive Data Lab"
)


def document(title: str, body: Markup, content: dict[str, Any]) -> str:
    """The whole page.

    Args:
        content: what the page's script is given: charts, themes, first values of the parameters.

    Raises:
        ReportError: the drawing library is not installed.
    """
    library, script = _script(_library()), _script(_part("page.js"))
    policy = (
        f"default-src 'none'; script-src {_hash(library)} {_hash(script)}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{text(policy)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{text(title)}</title>",
            # Without it browsers ask for /favicon.ico.
            '<link rel="icon" href="data:,">',
            f"<style>{_part('page.css')}</style>",
            "</head>",
            "<body>",
            body,
            f'<script type="application/json" id="content">{_data(content)}</script>',
            f"<!-- {LIBRARIES} -->",
            f"<script>{library}</script>",
            f"<script>{script}</script>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _library() -> str:
    """The script that draws. Putting it together takes more than a second, so it is kept in the user's cache folder."""
    try:
        import vl_convert
    except ImportError as error:
        raise ReportError(
            f"a report needs the package vl-convert-python, which cannot be imported ({error}). Install it with: "
            f"pip install 'gossamer[report]'"
        ) from error
    kept = cache_folder() / f"vega-embed-{version('vl-convert-python')}.js"
    with suppress(OSError, UnicodeDecodeError):
        return read_text(kept)
    # Its stub knows no default for the snippet, which is the whole of Vega-Embed.
    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    with suppress(OSError, CheckpointError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_text(kept, bundle)
    return bundle


def _part(name: str) -> str:
    return files("gossamer.report").joinpath(name).read_text(encoding="utf-8")


def _script(source: str) -> str:
    """Script that cannot end its own element."""
    return source.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _hash(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _data(content: dict[str, Any]) -> str:
    """JSON in which no character can begin markup."""
    plain = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
