"""Print how many images of a campaign ended how, and why those that are not ok did not."""

import argparse
import csv
from collections import Counter
from pathlib import Path

STATUSES = ("ok", "degraded", "rejected", "error")
SHOWN = 20


def rows(path):
    """Return the rows of an ECSV file as dictionaries of strings."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader((line for line in file if not line.startswith("#")), delimiter=" "))


def printable(text):
    """Return a text without what a terminal would act on: reasons may quote headers."""
    return "".join(character if character.isprintable() else " " for character in text)


def count(number, noun):
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def summary(results):
    """Return the lines of the summary."""
    campaign = Path(results) / "campaign"
    if not (campaign / "images.ecsv").is_file():
        return [f"No summary: there is no {campaign / 'images.ecsv'} yet."]
    images = rows(campaign / "images.ecsv")
    tally = Counter(image["status"] for image in images)
    statuses = ", ".join(f"{tally[status]} {status}" for status in STATUSES)
    candidates, found = (rows(campaign / f"{name}.ecsv") for name in ("candidates", "sources"))
    real = sum(row["is_real"] != "False" for row in candidates)
    total = f"{count(real, 'candidate')} in {count(len(found), 'source')}"
    if real < len(candidates):
        total += f"; {len(candidates) - real} set aside as known objects"
    new = len({row["source"] for row in rows(campaign / "uncatalogued.ecsv")})
    total += f"; {count(new, 'object')} not in the catalogue" if new else ""
    lines = [f"{count(len(images), 'image')}: {statuses}; {total}"]
    bad = [image for image in images if image["status"] != "ok"]
    bad.sort(key=lambda image: -STATUSES.index(image["status"]) if image["status"] in STATUSES else -len(STATUSES))
    for image in bad[:SHOWN]:
        stage = f" in {image['stage']}" if image["stage"] else ""
        lines.append(printable(f"  {image['image']}: {image['status']}{stage}: {image['reason']}"))
    if len(bad) > SHOWN:
        lines.append(f"  ... and {len(bad) - SHOWN} more")
    for name in [key for key in candidates[0] if key.endswith("_status")] if candidates else []:
        failed = sum(row[name] == "failed" for row in candidates)
        if failed:
            service = name.removesuffix("_status")
            lines.append(f"  known objects: {service} failed for {count(failed, 'candidate')}; the next run asks again")
    page = campaign / "report.html"
    lines.append(f"Page: {page}" if page.is_file() else f"The page {page} has not been made.")
    return lines


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="summary.py", description=__doc__)
    parser.add_argument("results", type=Path, help="the results folder")
    print("\n".join(summary(parser.parse_args(arguments).results)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
