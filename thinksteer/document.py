"""An HTML document that needs nothing else: what every page written here begins with, and its own policy.

Whatever slipped into a page, a browser would run no script of it, ask no server and send no form.
"""

import html

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
OPENING = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
)


def document(title: str, style: str, body: str) -> str:
    """The whole document; `title` is text, `style` and `body` are ready to be inserted. The body begins with the
    title."""
    shown = html.escape(title)
    return (
        f'{OPENING}<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{shown}</title>\n'
        f"<style>\n{style}\n</style>\n</head>\n<body>\n<h1>{shown}</h1>\n{body}\n</body>\n</html>\n"
    )
