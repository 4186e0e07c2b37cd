"""Opens a report of `densenet evaluate --report DIR --json FILE` in Chromium, and looks for what is wrong.

    python scripts/report_in_browser.py DIR FILE SCREENSHOTS

needs Chromium (Debian's package `chromium`) and playwright. It fails if the console has an error, the
page asks for anything over the network, it is wider than the window, names overlap, or a number on it is
not that of the JSON. It takes screenshots: on a desktop, on a phone, dark, and in print.
"""

import json
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

NUMBERS = """() => [...document.querySelectorAll('data[data-json]')]
    .map(one => [one.dataset.json, one.value])"""
WIDER = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
# Names over a matrix that reach into what is above them.
OVERLAP = """() => [...document.querySelectorAll('.matrix table')].flatMap(table => {
    const above = table.querySelector('caption').getBoundingClientRect().bottom;
    return [...table.querySelectorAll('.turned')]
        .filter(name => name.getBoundingClientRect().top < above).map(name => name.textContent);
})"""
KINDS = {
    "desktop": ((1280, 900), "light", "screen"),
    "phone": ((390, 844), "light", "screen"),
    "dark": ((1280, 900), "dark", "screen"),
    "print": ((794, 1123), "light", "print"),
}


def at(value, pointer: str):
    """What a JSON pointer (RFC 6901) points to."""
    for key in pointer.split("/")[1:]:
        key = key.replace("~1", "/").replace("~0", "~")
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


def main(report: Path, scores: Path, out: Path) -> None:
    measures = json.loads(scores.read_text())
    page_file = (report / "index.html").resolve()
    out.mkdir(parents=True, exist_ok=True)
    problems = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for name, (size, scheme, media) in KINDS.items():
            context = browser.new_context(
                viewport=dict(zip(("width", "height"), size)), color_scheme=scheme
            )
            page = context.new_page()
            page.on("console", lambda said: problems.append(f"{name}: {said.type}: {said.text}"))
            page.on("pageerror", lambda error: problems.append(f"{name}: {error}"))
            page.on(
                "request",
                lambda asked: asked.url.startswith(("file:", "data:"))
                or problems.append(f"{name}: asks for {asked.url}"),
            )
            page.emulate_media(media=media, color_scheme=scheme)
            page.goto(page_file.as_uri())
            numbers = page.evaluate(NUMBERS)
            wrong = [path for path, value in numbers if float(value) != at(measures, path)]
            problems += [f"{name}: {path} is not the JSON's" for path in wrong]
            wider = page.evaluate(WIDER)
            if wider > 0:
                problems.append(f"{name}: the page is {wider} pixels wider than the window")
            for text in page.evaluate(OVERLAP):
                problems.append(f"{name}: {text!r} reaches into the caption")
            broken = "() => [...document.images].filter(one => !one.naturalWidth).length"
            if page.evaluate(broken):
                problems.append(f"{name}: pictures are broken")
            page.screenshot(path=out / f"{name}.png", full_page=True)
            if media == "print":
                page.pdf(path=out / "print.pdf", format="A4", print_background=True)
            print(f"{name}: {len(numbers)} numbers, {page.evaluate('() => document.images.length')} pictures")
            context.close()
        browser.close()
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
