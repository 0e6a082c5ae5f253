"""Join the candidates of all images into sources with light curves, and list the images."""

import json
import sys
import time
from pathlib import Path

from nightsift import parameters
from nightsift.io import products
from nightsift.io.digests import digest
from nightsift.sources.sources import sources
from nightsift.workflow import records, results


def parser():
    parser = results.parser("sources", __doc__)
    parser.add_argument("--known", type=Path, nargs="?", help="what is known near the candidates, of fetch_known")
    parser.add_argument(
        "--aside", type=json.loads, default=[], help="JSON list of the kinds of known objects to leave out"
    )
    return parser


def main(arguments=None):
    start = time.perf_counter()
    options = parser().parse_args(arguments)
    params = parameters.SourcesConfig(**options.params)
    names = sorted(results.read_names(options.images))
    images, states = records.read_images(options.results / "images", names)
    inputs, known = {"states": states}, None
    if options.known and options.known.is_file():
        inputs["known"], known = digest(options.known), products.read_table(options.known)
    provenance = products.Provenance("sources", options.code, options.params, inputs)
    found = sources(images, params, known, options.aside)
    campaign = options.results / "campaign"
    for name, schema in results.TABLES.items():
        products.write_table(campaign / f"{name}.ecsv", getattr(found, name), schema, provenance)
    products.write_json(campaign / "model_card.json", found.model_card | {"provenance": provenance.as_dict()})
    problems = [image.problem for image in images if image.problem]
    for problem in problems:
        results.give_up("sources", problem)
    spent = time.perf_counter() - start
    counted = f"{len(found.candidates)} candidates, {len(found.sources)} sources"
    print(f"sources: {counted} in {spent:.1f} s", file=sys.stderr)
    return int(bool(problems))


if __name__ == "__main__":
    raise SystemExit(main())
