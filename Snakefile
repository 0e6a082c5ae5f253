"""Vetted transients and light curves from campaigns of FITS images."""

from snakemake.utils import min_version

min_version("9.0")


include: "rules/common.smk"
include: "rules/archive.smk"
include: "rules/calibrate.smk"
include: "rules/difference.smk"
include: "rules/campaign.smk"


rule all:
    default_target: True
    input:
        campaign_products(*TABLES, "report.html"),
        image_products("plots/overview.png"),
    localrule: True


# What an early target may be: the same without plots and page.
rule tables:
    input:
        campaign_products(*TABLES),
    localrule: True


onstart:
    list_images()


onsuccess:
    atexit.register(summarise)


onerror:
    finish_campaign()
    atexit.register(summarise, failed=True)
