"""Write what a search has found, for the stages that search."""

from __future__ import annotations

import numpy as np
from astropy.table import Table


def write_found(job, table: Table, passed: str, schema: str) -> Table:
    """Write all that was found as ``everything`` and what passed as ``candidates``; return the latter.

    Parameters
    ----------
    job : nightsift.workflow.stage.Job
        With the input ``inspect``.
    table : Table
        It gets the image's name, time and filter.
    passed : str
        Column that tells what passed.
    schema : str
        Of both tables.
    """
    inspected = job.facts_of("inspect")
    table["image"] = np.full(len(table), job.image)
    table["mjd"] = np.full(len(table), np.nan if inspected["mjd"] is None else inspected["mjd"])
    table["filter"] = np.full(len(table), inspected["filter"] or inspected["filter_name"] or "")
    found = table[np.asarray(table[passed], bool)]
    job.write_table("everything", table, schema)
    job.write_table("candidates", found, schema)
    return found
