"""A page taken apart: what it is built of, and the texts in it."""

from html.parser import HTMLParser


class Structure(HTMLParser):
    """`structure`: start tags with their attributes, end tags, comments and declarations, in order.

    `texts`: apart, by tag and first class, what follows each such start tag up to the next tag.
    """

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.structure, self.texts, self._inside = [], {}, None
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.structure.append((tag, attributes))
        self._inside = (tag, dict(attributes).get("class", "").split(" ")[0])
        self.texts.setdefault(self._inside, []).append("")

    def handle_endtag(self, tag):
        self.structure.append(f"/{tag}")
        self._inside = None

    def handle_data(self, data):
        if self._inside is not None:
            self.texts[self._inside][-1] += data

    def handle_comment(self, data):
        self.structure.append(("comment", data))

    def handle_decl(self, declaration):
        self.structure.append(("declaration", declaration))

    unknown_decl = handle_pi = handle_comment
