"""Vetted transients and light curves from campaigns of FITS images."""

from snakemake.utils import min_version

min_version("9.0")


include: "rules/common.smk"
include: "rules/archive.smk"
include: "rules/calibrate.smk"
include: "rules/difference.smk"
include: "rules/campaign.smk"


# What an early target may be: the products that users rely on, without plots and page. What no later stage asks for is
# named, too, and the state of every stage: Snakemake makes again only what is missing that somebody asks for.
rule tables:
    input:
        rules.sources.input,
        rules.sources.output,
        image_products(*(f"{stage}.json" for stage in STAGES)),
        image_products("mask.fits", "objects.fits", "candidates_all.fits", "uncatalogued_all.fits"),
        [state for image in CAMPAIGN.images for state in fetched_states(image)],
    localrule: True


rule all:
    default_target: True
    input:
        rules.tables.input,
        rules.report.output,
        expand(rules.plots.output, image=CAMPAIGN.images),
    localrule: True


onstart:
    list_images()


onsuccess:
    settle()
    atexit.register(summarise)


onerror:
    finish_campaign()
    settle()
    atexit.register(summarise, failed=True)
