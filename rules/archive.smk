"""What is asked of the archives: the only rules that use the network, and they use it on this machine."""


# Outside the groups of the image's stages: nodes of a cluster have no network, as a rule.
rule fetch_catalog:
    input:
        exposure=exposure,
    output:
        state=f"{IMAGE}/fetch_catalog.json",
        # The cache has them: they come back from there whenever they are needed.
        stars=temp(f"{IMAGE}/fetched_stars.fits"),
        gaia=temp(f"{IMAGE}/fetched_gaia.fits"),
    log:
        f"{IMAGE}/logs/fetch_catalog.log",
    localrule: True
    resources:
        vizier=1,
    params:
        **options("fetch_catalog", params=section("catalog"), extra=overrides, contents=contents(exposure)),
    shell:
        RUN_STAGE


rule fetch_template:
    input:
        exposure=exposure,
    output:
        state=f"{IMAGE}/fetch_template.json",
        mosaic=temp(f"{IMAGE}/fetched_template.fits"),
    log:
        f"{IMAGE}/logs/fetch_template.log",
    localrule: True
    resources:
        pictures=1,
    params:
        **options(
            "fetch_template",
            params=selected("template", "source", "survey", "band", "max_pieces"),
            extra=overrides,
            contents=contents(exposure),
        ),
    shell:
        RUN_STAGE


rule fetch_known:
    input:
        image_products("status.json", "candidates.fits", "wcs.fits", "inspect.json"),
    output:
        known=KNOWN,
    log:
        f"{RESULTS}/campaign/logs/fetch_known.log",
    localrule: True
    params:
        script="fetch_known.py",
        params=section("known"),
        code=code("fetch_known"),
        images=" ".join(CAMPAIGN.images),
        results=results_folder,
        list=IMAGE_LIST,
    shell:
        f"{RUN_CAMPAIGN} --known {{output.known:q}} > {{log:q}} 2>&1"
