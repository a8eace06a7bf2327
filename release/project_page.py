# SPDX-License-Identifier: Apache-2.0
"""Turns the README into the page of the project on a package index, where relative links lead nowhere."""

import re

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?://|#)([^)\s]+)\)")
_BLOCK = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)


def description(readme: str, repository: str, revision: str) -> str:
    """Returns the README with absolute links.

    Args:
        readme: The text of the README.
        repository: The address of the repository, such as `https://github.com/owner/name`. If it is empty, the text
            of the links remains, without links and pictures.
        revision: The tag or branch to which the links lead.
    """

    def absolute(match):
        is_picture, text, target = match[1], match[2], match[3]
        if not repository:
            return "" if is_picture else text
        view = "raw" if is_picture else "blob"
        return f"{is_picture}[{text}]({repository}/{view}/{revision}/{target})"

    parts = _BLOCK.split(readme)  # text and blocks of code take turns
    return "".join(part if index % 2 else _LINK.sub(absolute, part) for index, part in enumerate(parts))


def addresses(repository: str, revision: str) -> dict[str, str]:
    """Returns the addresses of the project by their names, or none if the repository is unknown."""
    if not repository:
        return {}
    pages = {"Documentation": "docs/index.md", "Changelog": "CHANGELOG.md", "Security": "SECURITY.md"}
    links = {name: f"{repository}/blob/{revision}/{page}" for name, page in pages.items()}
    return {"Repository": repository, "Issues": f"{repository}/issues", **links}
