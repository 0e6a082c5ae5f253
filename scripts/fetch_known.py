"""Ask services, or the cache, what is known near the candidates of a campaign."""

import sys
import time
from pathlib import Path

from nightsift import parameters
from nightsift.archive.known import annotate
from nightsift.archive.library import Library
from nightsift.io import products
from nightsift.sources import known
from nightsift.workflow import results
from nightsift.workflow.known import read_candidates


def parser():
    parser = results.parser("fetch_known", __doc__)
    parser.add_argument("--known", type=Path, required=True, help="output, table:known")
    parser.add_argument("--partial", action="store_true", help="write it even if a service is down")
    return parser


def main(arguments=None):
    start = time.perf_counter()
    options = parser().parse_args(arguments)
    params = parameters.KnownConfig(**options.params)
    names = sorted(results.read_names(options.images))
    images = [read_candidates(name, options.results / "images" / name) for name in names]
    table, problems = annotate(images, params, Library.from_environment())
    for service, errors in problems.items():
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        text = f"{errors[0]}{more}; the next run asks again"
        print(f"fetch_known: {known.SERVICES[service].title}: {text}", file=sys.stderr)
    if problems and not options.partial:
        return 1
    provenance = products.Provenance("fetch_known", options.code, options.params)
    products.write_table(options.known, table, "known", provenance)
    if not options.partial:
        options.known.with_name("known_partial.ecsv").unlink(missing_ok=True)
    print(f"fetch_known: {len(table)} candidates in {time.perf_counter() - start:.1f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
